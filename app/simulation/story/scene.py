"""What the parts of a story share: the project, the time it has come to, and what was done so far."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import DateTime, inspect, update
from sqlalchemy.orm import Session

from app.errors import PodiumError
from app.labeling.models import Slate
from app.notifications.models import Alarm
from app.people.models import Account
from app.policies.evaluation import WinRate, win_rate
from app.policies.models import PolicyVersion
from app.projects.models import Project
from app.prompts.models import Prompt
from app.rounds.models import Round, RoundState
from app.settings import Settings
from app.simulation.story.texts import Writer

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
# What each version writes like, by its number: the fourth says too much, which the people who compare two replies
# like at first, and the people who rank soon do not.
WRITERS = {1: Writer(0.4), 2: Writer(0.6), 3: Writer(0.72), 4: Writer(0.98, rambling=0.35), 5: Writer(0.95)}


class StoryWentAstray(PodiumError):
    """The story could not be told to its end; nothing of it was kept."""

    code = "story_went_astray"


@dataclass
class Told:
    """What was done, for whoever checks what the pages say of it. Numbers are of rounds and of policy versions."""

    slug: str
    num_rankings: int = 0  # of training slates
    num_demonstrations: int = 0
    states: dict[int, RoundState] = field(default_factory=dict)  # round -> how it ended
    made: dict[int, int] = field(default_factory=dict)  # round -> the version it made
    verdicts: dict[int, WinRate] = field(default_factory=dict)  # round -> what people said
    current: int = 1
    paused_labeler: str = ""


@dataclass
class Scene:
    """Where the story plays. now: the time that it has come to."""

    session: Session
    settings: Settings
    now: datetime
    seed: int
    told: Told
    project: Project = field(init=False)
    admin: Account = field(init=False)  # who starts rounds and decides

    def end(self, round: Round) -> None:
        """Note how the round stands."""
        self.catch_up()
        self.told.states[round.number] = round.state
        if round.candidate_id is not None:
            self.told.made[round.number] = self.session.get_one(PolicyVersion, round.candidate_id).number
        if (verdict := win_rate(self.session, round)) is not None:
            self.told.verdicts[round.number] = verdict

    def date(self, session: Session, *_: Any) -> None:
        """What the database would date by its own clock gets the story's time, before it is written.

        Slates that are made together are free one after another: who is given which is always the same.
        """
        for number, row in enumerate(session.new):
            if isinstance(row, Slate):
                row.free_from = self.now - MINUTE + timedelta(milliseconds=number)
            for attribute in inspect(type(row)).column_attrs:
                column = attribute.columns[0]
                is_dated = column.server_default is not None and isinstance(column.type, DateTime)
                if is_dated and getattr(row, attribute.key) is None:
                    setattr(row, attribute.key, self.now)

    def catch_up(self) -> None:
        """The same for what statements wrote past the session. Everything is read anew afterwards."""
        self.session.flush()
        for column in (Prompt.created_at, Slate.retired_at, Alarm.raised_at):
            self.session.execute(
                update(column.class_)
                .where(column.class_.project_id == self.project.id, column > self.now)
                .values({column.key: self.now})
                .execution_options(synchronize_session=False)
            )
        self.session.expire_all()
