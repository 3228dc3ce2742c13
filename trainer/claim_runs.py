"""What stages and evaluations have in common as a trainer runs them: a claim, the device, a recipe and its end.

One of the modules here that touch the database. A recipe is a process of its own, and its crash is an event to
report. The claim (attempt, owner, deadline) is committed before work starts, and the worker's heartbeat renews it; a
worker that is killed leaves a recipe that dies by its pipe, and another worker goes on from the last checkpoint.
"""

import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import datetime
from typing import Any, ClassVar, Generic, TypeVar

from sqlalchemy.orm import Session

from app.artifact_errors import StoreUnreachable
from app.artifacts import Wait
from app.db import SessionFactory, clock
from app.monitoring import trainer_metrics
from app.rounds.models import Phase
from app.rounds.stage_copies import StageCopies
from trainer.checkpoint_names import saved_checkpoints, step_of
from trainer.hands import Hands
from trainer.recipe_process import EXIT_LOCKED, RecipeProcess, explain, is_worth_another_try
from trainer.round_folder import RoundFolder

log = logging.getLogger(__name__)

FOLLOW_S = 0.3  # between two looks at what a recipe wrote
RETRY_S = 1.0  # while another has the device, or the folder
STORE_RETRY_S = 5.0
STORE_BACK_S = 60.0  # without trouble for so long, the store had been back
STORE_PATIENCE_S = 600.0  # how long the artifact store may be away before the work fails; what was done is kept
STOP_TIMEOUT_S = 100.0  # a recipe saves at the border of a step
MAX_KILLS = 3  # by signals, within one claim; after that the work fails and says so

Claim = TypeVar("Claim")
Look = Callable[[], None]


class Ended(Exception):
    """It was cancelled, put back or failed, and that is written down: there is nothing more to do about it."""


class ClaimRunner(ABC, Generic[Claim]):
    """Runs what a worker claims, one at a time, while the worker's heartbeat renews what it holds."""

    lost: ClassVar[type[Exception]]  # made from a claim: it is not held any more

    def __init__(self, hands: Hands) -> None:
        self.hands = hands
        self._transact = hands.transact
        self.claim: Claim | None = None
        self.recipe = self.outcome = ""  # of the claim: for the metrics
        self.is_cancelled = self.is_lost = False

    # How claims of this kind are kept and ended. Each raises what `lost` names.

    @abstractmethod
    def _renew(self, session: Session, claim: Claim, now: datetime) -> bool:
        """Hold it for longer; whether somebody asked to cancel it."""

    @abstractmethod
    def _put_back(self, session: Session, claim: Claim) -> None:
        """Let another worker take it."""

    @abstractmethod
    def _cancel(self, session: Session, claim: Claim, now: datetime) -> None:
        """End it as somebody asked."""

    @abstractmethod
    def _write_failure(self, session: Session, claim: Claim, error: dict[str, Any], now: datetime) -> None:
        """error: {"code", "message", "advice", "last_lines"}."""

    @abstractmethod
    def _hold(self, session: Session, gpu: str, claim: Claim, now: datetime) -> bool:
        """Take the GPU for it, if nobody else has it."""

    def _tell(self, claim: Claim, story: str, phase: Phase | None = None) -> None:
        """Add a line to its story, if it has one. phase: that begins with it."""

    # From other threads

    def renew(self, session: Session, now: datetime) -> None:
        """Part of each heartbeat, in its thread."""
        claim = self.claim
        if claim is None:
            return
        try:
            self.is_cancelled = self._renew(session, claim, now)
        except self.lost:
            self.is_lost = self.claim is claim  # it may have been completed a moment ago
            return
        self.hands.keep_device(session, now)

    def give_back(self) -> None:
        """Release what is claimed, from another thread, in the middle of it. Raises what `lost` names."""
        claim = self.claim
        if claim is not None:
            with SessionFactory.begin() as session:
                self._put_back(session, claim)
            log.warning("%s is given back", claim)

    # The recipe

    def _run_to_result(
        self, claim: Claim, folder: RoundFolder, copies: StageCopies, *, ids: str, looks: Callable[[], Look]
    ) -> None:
        """Run the recipe to its end, through kills; all other ends are written down.

        looks: makes what is called at every look at one process, that it is followed by. ids: see RecipeProcess.
        Raises Ended, and what `lost` names.
        """
        num_kills = 0
        while not folder.is_finished:
            recipe = RecipeProcess(self.recipe, folder, ids=ids)
            try:
                status = self._follow(claim, recipe, copies, looks())
            finally:
                recipe.kill()  # nothing that goes wrong here leaves a recipe behind
                recipe.close()
            if status == 0:
                continue
            copies.catch_up()  # before the claim is let go: whoever takes it goes on from here
            self._end_if_asked(claim)
            if status == EXIT_LOCKED:  # the recipe of an earlier attempt is still on its way out
                self.hands.stopping.wait(RETRY_S)
                continue
            num_kills += 1
            if not is_worth_another_try(status) or num_kills > MAX_KILLS:
                self._fail(claim, explain(status, folder, recipe.last_lines()))
                raise Ended
            trainer_metrics.KILLS.labels(self.recipe).inc()
            self._tell(claim, f"The recipe was killed ({status}); {where_it_goes_on(folder)}.")

    def _follow(self, claim: Claim, recipe: RecipeProcess, copies: StageCopies, look: Look) -> int:
        """Look at what the recipe writes until it ends; its exit status. Raises what `lost` names, having killed it."""
        asked_at: float | None = None
        waited = 0.0
        while True:
            status = recipe.poll()  # before looking: what it wrote last is read after its end
            look()
            copies.look()
            if self.is_lost:
                recipe.kill()
                raise self.lost(claim)
            if status is not None:
                return status
            if self._is_to_end and asked_at is None:
                recipe.ask_to_stop()
                asked_at = waited
            if asked_at is not None and waited - asked_at > STOP_TIMEOUT_S:
                recipe.kill()
            if self.hands.wakeups.wait(FOLLOW_S):  # somebody called: it may be to cancel
                self._transact(lambda session: self.renew(session, clock(session)))
            waited += FOLLOW_S

    # The end

    @property
    def _is_to_end(self) -> bool:
        return self.is_cancelled or self.hands.stopping.is_set()

    def _end_if_asked(self, claim: Claim) -> None:
        """Raises Ended where it was cancelled, or is put back as the worker stops."""
        if self.is_cancelled:
            self._transact(lambda session: self._cancel(session, claim, clock(session)))
            self.outcome = "cancelled"
        elif self.hands.stopping.is_set():
            self._transact(lambda session: self._put_back(session, claim))
            self.outcome = "put_back"
        else:
            return
        log.info("%s %s", claim, self.outcome.replace("_", " "))
        raise Ended

    def _fail(self, claim: Claim, error: dict[str, Any]) -> None:
        log.error("%s failed: %s", claim, error["message"])
        self._transact(lambda session: self._write_failure(session, claim, error, clock(session)))
        self.outcome = "failed"

    # The device and the store

    def _wait_for_device(self, claim: Claim) -> None:
        """Hold the GPU, once whoever has it lets go. Raises Ended, and what `lost` names."""
        gpu = self.hands.gpu
        if gpu is None:
            return
        is_told = False
        while not self._transact(lambda session: self._hold(session, gpu, claim, clock(session))):
            if self.is_lost:
                raise self.lost(claim)
            self._end_if_asked(claim)
            if not is_told:
                self._tell(claim, "Waits for the GPU.", Phase.WAITING_FOR_DEVICE)
                is_told = True
            self.hands.wakeups.wait(RETRY_S)

    def _waiting_for_store(self, claim: Claim) -> Wait:
        """What is done while the store is away: it is told, and tried again until somebody has had enough."""
        away_since = last_told = -math.inf

        def wait(problem: StoreUnreachable) -> None:
            nonlocal away_since, last_told
            now = time.monotonic()
            if now - last_told > STORE_BACK_S:
                away_since = now
                self._tell(claim, f"{problem.message}; trying again.")
            last_told = now
            if self.is_lost:
                raise self.lost(claim)
            if self._is_to_end or now - away_since > STORE_PATIENCE_S:
                raise problem
            self.hands.stopping.wait(STORE_RETRY_S)

        return wait


def where_it_goes_on(folder: RoundFolder) -> str:
    """What becomes of a recipe that was ended in the middle, in words."""
    if saved_step(folder) is None:
        return "it begins again, as it had no checkpoint yet"
    return "it goes on from its last checkpoint"


def saved_step(folder: RoundFolder) -> int | None:
    """After which step the last checkpoint was written; None where there is none."""
    saved = saved_checkpoints(folder.checkpoints)
    return step_of(saved[-1]) if saved else None
