"""Looking at a policy before a project is made from it: each thing that can be wrong has its own words."""

import json
import shutil
from pathlib import Path
from unittest.mock import Mock

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

from trainer import inspect_policy as module
from trainer.errors import StageError
from trainer.inspect_policy import TOKENIZER_FILES, HubRefused, HubUnreachable, NoTokenizer, inspect_policy
from trainer.models import ModelNotFound


@pytest.fixture
def folder(llama_folder: Path, tmp_path: Path) -> Path:
    """A tiny policy that may be spoilt."""
    return Path(shutil.copytree(llama_folder, tmp_path / "policy"))


def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        inspect_policy(str(tmp_path / "nothing"))


def test_a_policy_without_a_tokenizer_says_so(folder: Path) -> None:
    for name in TOKENIZER_FILES:
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(NoTokenizer, match="has no tokenizer"):
        inspect_policy(str(folder))


@pytest.mark.parametrize("template", [None, "{{ messages[0]['content'] }}"])
def test_whether_it_has_a_chat_template_is_told(folder: Path, template: str | None) -> None:
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text())
    config.pop("chat_template", None)
    file.write_text(json.dumps(config | ({"chat_template": template} if template else {})))
    assert inspect_policy(str(folder))["facts"]["has_chat_template"] == (template is not None)


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (LocalEntryNotFoundError("no network"), HubUnreachable),
        (RepositoryNotFoundError("404", response=Mock()), HubRefused),
    ],
)
def test_a_hub_that_is_away_and_one_that_refuses_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, answer: Exception, named: type[StageError]
) -> None:
    monkeypatch.setattr(module, "snapshot_download", Mock(side_effect=answer))
    with pytest.raises(named, match="some/model"):
        inspect_policy("some/model")
