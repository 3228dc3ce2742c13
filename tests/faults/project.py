"""The project that faults happen to: its schema, a tiny policy, prompts, and people with keys."""

from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, select, text
from sqlalchemy.orm import Session

from app import migrate
from app.db import clock, driver_url
from app.people.models import Membership, Role
from app.people.service import create_account, create_key
from app.policies.service import InspectedPolicy
from app.projects.models import Project
from app.projects.service import create_project
from app.projects.starter import num_parameters, tokenizer_sha256
from app.prompts.models import Split, Use
from app.quality.guidelines import accept
from app.simulation.people import hire
from tests.app.loop import make_prompts

LEASE_DURATION_S = 8
SETTINGS: dict[str, Any] = {
    "overlap": 2,
    "min_k": 4,
    "max_k": 5,
    "queue_target": 12,
    "lease_duration_s": LEASE_DURATION_S,
    "max_completion_tokens": 6,
    "asks_quality": False,
    "gold_share": 0.0,
    "repeat_share": 0.0,
}


def settle_in(url: str, policy: Path, slug: str, num_labelers: int) -> tuple[list[str], str]:
    """Make all of it in an empty database; the keys of the labelers, and of an admin."""
    _keep_the_log_small(url)
    engine = create_engine(driver_url(url))
    migrate.upgrade(engine)
    with Session(engine) as session, session.begin():
        project = _make_project(session, policy, slug)
        keys = hire(session, project, num_labelers, now=clock(session))
        for member in session.scalars(select(Membership).where(Membership.project_id == project.id)):
            accept(session, member.account, project, version=1, now=clock(session))
        account = create_account(session, email="ada@example.org", name="Ada", password=None)
        session.add(Membership(account_id=account.id, project_id=project.id, role=Role.ADMIN))
        admin_key = create_key(session, account, "tests")
    engine.dispose()
    return keys, admin_key


def _keep_the_log_small(url: str) -> None:
    """So that it fits on a small disk."""
    engine = create_engine(driver_url(url), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for setting in ("max_wal_size = '64MB'", "min_wal_size = '32MB'"):
            connection.execute(text(f"ALTER SYSTEM SET {setting}"))
        connection.execute(text("SELECT pg_reload_conf()"))
    engine.dispose()


def _make_project(session: Session, policy: Path, slug: str) -> Project:
    inspected = InspectedPolicy(
        source=str(policy),
        num_parameters=num_parameters(policy / "model.safetensors"),
        context_tokens=64,
        tokenizer_sha256=tokenizer_sha256(policy / "tokenizer.json"),
    )
    project = create_project(
        session,
        slug=slug,
        name="Faults",
        policy=inspected,
        guidelines="Be kind.",
        created_by=None,
        now=clock(session),
        **SETTINGS,
    )
    make_prompts(session, project, Split.TRAIN, 600)
    make_prompts(session, project, Split.VALIDATION, 200)
    for split in (Split.TRAIN, Split.VALIDATION, Split.TEST):
        for prompt in make_prompts(session, project, split, 12):
            prompt.use = Use.ROLL_OUT
    return project
