"""A sampler on a machine of its own opens policies that a trainer elsewhere left in the artifact store."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from app.artifacts import Store, files_below
from app.db import SAMPLER_CHANNEL
from app.policies.service import current_version
from app.projects.models import Project
from app.settings import Settings
from app.wakeups import Wakeups
from tests.object_store import ObjectStore
from tests.trainer.test_sampler import make_loop, slates
from trainer.reward_store import trunk_here
from trainer.sampler import Sampler
from trainer.settings import STARTER

RESULT = "projects/tiny/rounds/0001/ppo/result"


@pytest.fixture
def sampler(engine: Engine, object_store: ObjectStore, tmp_path: Path) -> Iterator[Sampler]:
    wakeups = Wakeups(engine, (SAMPLER_CHANNEL,))
    yield Sampler(Settings(home=tmp_path / "home", device="cpu", PODIUM_ARTIFACTS=object_store.url), wakeups)
    wakeups.close()


@pytest.fixture
def made_elsewhere(session: Session, object_store: ObjectStore, llama_folder: Path, tmp_path: Path) -> Store:
    """A project whose current policy was made on another machine."""
    elsewhere = Store(object_store.url, tmp_path / "elsewhere")
    elsewhere.send(RESULT, files_below(llama_folder))
    manifest = object_store.files.cat_file(f"{object_store.url}/{RESULT}/manifest.json")
    version = current_version(session, make_loop(session, llama_folder))
    version.source = f"rounds:{RESULT}"
    version.manifest_sha256 = hashlib.sha256(manifest).hexdigest()
    session.commit()
    return elsewhere


def test_a_policy_that_was_made_on_another_machine_fills_slates(
    session: Session, sampler: Sampler, made_elsewhere: Store
) -> None:
    assert sampler.step()
    assert len(slates(session, session.scalars(select(Project)).one())) == 3
    assert (sampler.settings.home / "artifacts" / RESULT / "model.safetensors").is_file()


def test_a_store_that_is_away_puts_the_project_off_and_says_why(
    session: Session, sampler: Sampler, made_elsewhere: Store, object_store: ObjectStore
) -> None:
    object_store.go_away()
    try:
        sampler.step()
    finally:
        object_store.come_back()
    assert slates(session, session.scalars(select(Project)).one()) == []
    assert "the artifact store" in sampler.slates.problem
    assert "cannot be reached" in sampler.slates.problem


def test_a_file_that_was_altered_in_the_store_is_never_sampled_from(
    session: Session, sampler: Sampler, made_elsewhere: Store, object_store: ObjectStore
) -> None:
    object_store.files.pipe_file(f"{object_store.url}/{RESULT}/model.safetensors", b"other weights")
    sampler.step()
    assert slates(session, session.scalars(select(Project)).one()) == []
    assert f"{RESULT}/model.safetensors in the artifact store" in sampler.slates.problem


def test_the_trunk_of_adapters_is_found_on_another_machine(tmp_path: Path) -> None:
    result = tmp_path / "here/artifacts/projects/p/rounds/0002/reward/result"
    sft = tmp_path / "here/artifacts/projects/p/rounds/0001/sft/result"
    sft.mkdir(parents=True)
    assert trunk_here(result, "/there/podium/projects/p/rounds/0001/sft/result") == str(sft)
    assert trunk_here(result, "/there/lib/trainer/starter/policy") == str(STARTER / "policy")
    assert trunk_here(result, "Qwen/Qwen2.5-0.5B-Instruct") == "Qwen/Qwen2.5-0.5B-Instruct"
    assert trunk_here(result, "/there/projects/p/rounds/0009/sft/result").startswith("/there")  # and is said missing
