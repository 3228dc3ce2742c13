"""The trainer's worker: claims what waits, a stage or an evaluation, and runs one at a time; looks at rules meanwhile.

One of the modules here that touch the database. Claims are renewed by its heartbeat. Its other halves: `stage_runs`,
`reward_evaluations`.
"""

import logging
import logging.config
import math
import socket
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app import terminal
from app.artifact_errors import ArtifactError
from app.artifacts import open_store
from app.db import TRAINER_CHANNEL, SessionFactory, clock
from app.monitoring import logs, trainer_metrics
from app.reward_models.claims import EvaluationClaimLost
from app.rounds import rules
from app.rounds.claims import ClaimLost
from app.rounds.heart import BEAT_S, Heart, new_owner
from app.settings import Settings, get_settings
from app.terminal import CannotStart
from app.wakeups import Wakeups
from trainer.claim_runs import STOP_TIMEOUT_S
from trainer.database_away import Stopping
from trainer.devices import available_device, memory_gb
from trainer.errors import StageError
from trainer.hands import Hands
from trainer.long_running import RETRY_S, only_if_away, run_until_told
from trainer.reward_evaluations import EvaluationRunner
from trainer.stage_runs import StageRunner

log = logging.getLogger("trainer.worker")  # also where it is run as __main__

CLAIM_DURATION = timedelta(seconds=30)  # renewed with every heartbeat
POLL_S = 2.0
LOOK_AT_RULES_S = 10.0
LEAVE_TIMEOUT_S = STOP_TIMEOUT_S + 20.0  # whatever it is in the middle of, what it holds is free by then

Answer = TypeVar("Answer")


class Worker:
    """The process's state: what it holds, and what it was told."""

    def __init__(
        self,
        settings: Settings,
        wakeups: Wakeups,
        *,
        claim_duration: timedelta = CLAIM_DURATION,
        beat_s: float = BEAT_S,
    ) -> None:
        self.settings = settings
        self.store = open_store(settings)
        self.wakeups = wakeups
        self.owner = new_owner("trainer")
        self.stopping = threading.Event()
        device = available_device(settings.device)
        self.heart = Heart(
            self.owner, "trainer", renew=self._renew, beat_s=beat_s, device=device, memory_gb=memory_gb(device)
        )
        self.rules_looked_at = -math.inf
        self.hands = Hands(
            settings=settings,
            store=self.store,
            wakeups=wakeups,
            owner=self.owner,
            heart=self.heart,
            stopping=self.stopping,
            device=device,
            gpu=f"{socket.gethostname()}/cuda:0" if device == "cuda" else None,
            claim_duration=claim_duration,
            transact=self._transact,
        )
        self.stages = StageRunner(self.hands, self._look_at_rules)
        self.evaluations = EvaluationRunner(self.hands)

    def run(self) -> None:
        """Until told to stop. Survives a database that goes away and comes back."""
        self.heart.start()
        log.info("%s waits for stages, device=%s", self.owner, self.hands.device)
        try:
            while not self.stopping.is_set():
                self._look_at_rules()
                if not self.step():
                    self.heart.doing = "waiting for a stage"
                    self.wakeups.wait(POLL_S)
        except Stopping:
            log.warning("stopping while the database is away; what was claimed is free after its deadline")
        self.heart.stop()
        log.info("%s has ended", self.owner)

    def stop(self) -> None:
        """Let the recipe save a checkpoint, put its stage back into the queue, and end."""
        self.stopping.set()
        self.wakeups.wake()

    def give_back(self) -> None:
        """Release what is claimed, from another thread, in the middle of it: nobody waits for the deadline.

        What cannot be given back, or is somebody else's by now, keeps nothing else: the device least of all.
        """
        for release in (self.stages.give_back, self.evaluations.give_back, self.hands.release_device, self.heart.stop):
            try:
                release()
            except (ClaimLost, EvaluationClaimLost) as lost:
                log.warning("%s; giving back what else is held", lost)
            except Exception:
                log.exception("not given back; it is free after its deadline")

    def _look_at_rules(self) -> None:
        """Start what projects' rules have due, every now and then: while nothing runs, and while something does."""
        if time.monotonic() < self.rules_looked_at + LOOK_AT_RULES_S:
            return
        self.rules_looked_at = time.monotonic()
        try:
            self._transact(lambda session: rules.start_due_round(session, now=clock(session)))
        except Stopping:
            raise
        except Exception:
            log.exception("a rule could not be looked at; looking again in %s s", LOOK_AT_RULES_S)

    def step(self) -> bool:
        """Run one stage, or else one evaluation of a reward model, if one waits; whether one did."""
        return self.stages.step() or self.evaluations.step()

    def _renew(self, session: Session, now: datetime) -> None:
        """Part of each heartbeat, in its thread."""
        self.evaluations.renew(session, now)
        self.stages.renew(session, now)

    def _transact(self, action: Callable[[Session], Answer]) -> Answer:
        """Run the action in a transaction; again from its start whenever the database goes away meanwhile.

        Raises Stopping if the worker is to stop before the database is back.
        """
        while True:
            try:
                with SessionFactory.begin() as session:
                    return action(session)
            except DBAPIError as error:
                only_if_away(error)
            if self.stopping.wait(RETRY_S):
                raise Stopping


def main() -> None:
    """Run a worker against DATABASE_URL until SIGTERM or Ctrl-C."""
    settings = get_settings()
    logging.config.dictConfig(logs.configuration(settings, "trainer"))
    try:
        available_device(settings.device)
        engine = terminal.reach_migrated(settings, application="podium-trainer")
        if store := open_store(settings):
            store.check(writes=True)
    except (CannotStart, StageError, ArtifactError) as error:
        terminal.refuse(str(error), exit_code=terminal.USAGE)
    worker = Worker(settings, Wakeups(engine, (TRAINER_CHANNEL,)))
    run_until_told(
        worker,
        engine,
        leave_after_s=LEAVE_TIMEOUT_S,
        place=settings.trainer_listen,
        token=settings.metrics_token,
        registry=trainer_metrics.REGISTRY,
    )


if __name__ == "__main__":
    main()
