"""A tiny real policy for the tests that kill processes."""

from pathlib import Path

import pytest

from tests.trainer.conftest import save_tiny_policy


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_policy("llama", tmp_path_factory.mktemp("llama"))
