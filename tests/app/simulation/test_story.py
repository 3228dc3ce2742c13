"""The story of six rounds: built through the services, and told by every page as it was."""

import json
import re
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db import clock
from app.notifications.models import Alarm
from app.people.models import AuditEvent
from app.policies.models import PolicyVersion, RewardModelVersion
from app.projects.models import Project
from app.rounds.models import Round, StageEvent
from app.settings import Settings
from app.simulation.story.acts import tell_story
from tests.app.conftest import Person


def text_of(person: Person, address: str) -> str:
    """What the page says, without its markup."""
    page = person.get(address)
    assert page.status_code == 200, address
    return " ".join(re.sub(r"<[^>]+>", " ", page.text.partition("<main")[2]).split())


def folders(settings: Settings) -> set[Path]:
    return {path.parent for path in settings.artifacts.rglob("manifest.json")}


def test_every_page_tells_the_story_as_it_was(session: Session, settings: Settings, site_admin: Person) -> None:
    """One test, since it is told once: what is stored, and what the pages say of it."""
    started = clock(session)
    told = tell_story(session, settings, slug="story", now=started)
    session.commit()
    check_what_is_stored(session, settings, started)
    root = "/projects/story"
    states = {number: state.value for number, state in told.states.items()}
    assert states == {
        1: "succeeded",
        2: "succeeded",
        3: "failed",
        4: "succeeded",
        5: "cancelled",
        6: "succeeded",
    }
    assert told.made == {1: 2, 2: 3, 4: 4, 6: 5}

    page = text_of(site_admin, root)
    assert "500 320 train, 56 validation, 124 test" in page  # a hash of the prompts: the same on every machine
    assert f"Policy ● version {told.current}" in page.replace("preferred by people", "●").replace(
        "judged by people", "●"
    )
    assert "12 of 12 ready" in page
    assert "round 6" in page
    assert f"It won {100 * told.verdicts[6].rate:.0f}" in page
    assert f" {told.num_rankings} " in page

    rounds = text_of(site_admin, f"{root}/rounds")
    for number, state in states.items():
        assert re.search(rf"\b{number}\s+{state}\b", rounds), (number, state, rounds[:2000])
    assert "ran out of memory at step 9" in text_of(site_admin, f"{root}/rounds/3")
    assert "lower ppo.batch_size" in text_of(site_admin, f"{root}/rounds/3")
    assert "cancelled" in text_of(site_admin, f"{root}/rounds/5")

    kinds = {number: text_of(site_admin, f"{root}/policies/{number}") for number in (1, 2, 3, 4, 5)}
    assert [number for number, page in kinds.items() if f"Policy version {number} current" in page] == [5]
    assert all(f"Policy version {number} retired" in kinds[number] for number in (1, 2, 3, 4))
    people = text_of(site_admin, f"{root}/people")
    assert re.search(rf"{told.paused_labeler}\b.{{0,200}}paused", people)
    assert people.partition("Whoever is paused")[0].count("paused") == 1
    assert "Krippendorff" in text_of(site_admin, f"{root}/quality")


def check_what_is_stored(session: Session, settings: Settings, started: datetime) -> None:
    """Files are what their manifests say, versions name those manifests, and nothing happened after now."""
    assert session.scalars(select(Project.queue_target)).one() == 12
    for folder in folders(settings):
        manifest = json.loads((folder / "manifest.json").read_text())
        assert {name: sha256((folder / name).read_bytes()).hexdigest() for name in manifest} == manifest
    stored = session.scalars(select(PolicyVersion.manifest_sha256).where(PolicyVersion.number > 1)).all()
    stored += session.scalars(select(RewardModelVersion.manifest_sha256)).all()
    assert len(stored) == 4 + 6
    assert set(stored) <= {sha256((folder / "manifest.json").read_bytes()).hexdigest() for folder in folders(settings)}
    for table, column in ((StageEvent, StageEvent.at), (AuditEvent, AuditEvent.at), (Round, Round.finished_at)):
        late = select(func.count()).select_from(table).where(column > started)
        if table is AuditEvent:
            late = late.where(AuditEvent.project_id.is_not(None))
        assert session.scalar(late) == 0, column
    failed_at, raised_at = session.execute(
        select(Round.finished_at, Alarm.raised_at).join(Alarm, Alarm.round_id == Round.id)
    ).one()
    assert raised_at == failed_at
    by_hand = session.scalars(
        select(AuditEvent.action).where(AuditEvent.action.startswith("policy"), AuditEvent.account_id.is_not(None))
    )
    assert list(by_hand).count("policy.roll_back") == 1
