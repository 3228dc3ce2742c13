"""The sampler: answers what the web asks of a model, and keeps every active project's queue of slates filled.

One of the modules here that touch the database. What it claims is committed before a model runs, and renewed by its
heartbeat: a sampler that is killed loses nothing but its time. Its other halves: `request_answers`, `slate_filling`.
"""

import logging
import logging.config
import os
import socket
import threading
from datetime import datetime, timedelta

import torch
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from transformers.utils import logging as transformers_logging

from app import terminal
from app.artifact_errors import ArtifactError
from app.artifacts import open_store
from app.db import SAMPLER_CHANNEL, SessionFactory, clock
from app.labeling import queue
from app.monitoring import logs, sampler_metrics
from app.projects.models import Project
from app.rounds import devices
from app.rounds.heart import Heart, new_owner
from app.settings import Settings, get_settings
from app.terminal import CannotStart
from app.wakeups import Wakeups
from trainer.completions_server import SLATES, CompletionsServer
from trainer.devices import available_device
from trainer.errors import StageError
from trainer.long_running import RETRY_S, only_if_away, run_until_told
from trainer.request_answers import RequestAnswerer
from trainer.slate_filling import SlateFiller
from trainer.version_models import VersionModels

log = logging.getLogger("trainer.sampler")  # also where it is run as __main__

CLAIM_DURATION = timedelta(seconds=60)  # renewed with every heartbeat
POLL_S = 2.0
STOP_TIMEOUT_S = 20.0  # for the batch at hand; what is not finished by then is given back
NICENESS = 5  # a labeler's request comes before the next slate


class Sampler:
    """The process's state: which models are open, what is claimed, which projects wait for a better time."""

    def __init__(self, settings: Settings, wakeups: Wakeups) -> None:
        self.settings = settings
        self.wakeups = wakeups
        self.owner = new_owner("sampler")
        self.stopping = threading.Event()
        self.heart = Heart(self.owner, "sampler", renew=self._renew)
        self.server = completions_server(settings)
        on_gpu = self.server is None and available_device(settings.device) == "cuda"
        self.gpu = f"{socket.gethostname()}/cuda:0" if on_gpu else None
        self.models = VersionModels(settings, open_store(settings), self.server)
        mine = (self.models, self.owner, self.heart, self.stopping, CLAIM_DURATION)
        self.requests = RequestAnswerer(*mine)
        self.slates = SlateFiller(*mine, has_gpu=on_gpu)

    def run(self) -> None:
        """Until told to stop. Survives a database that goes away and comes back."""
        self.heart.start()
        log.info("%s keeps queues filled, engine=%s", self.owner, self.settings.engine)
        while not self.stopping.is_set():
            try:
                is_busy = self.step()
            except DBAPIError as error:
                only_if_away(error)
                self.stopping.wait(RETRY_S)
                continue
            if not is_busy:
                self.wakeups.wait(POLL_S)
        self._let_go()
        self.heart.stop()
        log.info("%s has ended", self.owner)
        if self.server is not None:
            self.server.close()

    def stop(self) -> None:
        """Finish the batch at hand and end."""
        self.stopping.set()
        self.wakeups.wake()

    def give_back(self) -> None:
        """Release all that is claimed, from another thread, in the middle of a batch: nobody waits for deadlines."""
        with SessionFactory.begin() as session:
            num_slates, num_requests = self.slates.release(session), self.requests.release(session)
        log.warning("given back: slates=%s requests=%s", num_slates, num_requests)
        self._let_go()
        self.heart.stop()

    def step(self) -> bool:
        """Answer what is asked, then fill one batch of slates; whether there was anything to do."""
        self._choose_device()
        answered = self.requests.answer_all()
        self.plan()
        filled = self.slates.fill_batch()
        return answered or filled

    def plan(self) -> None:
        """Bring the queue of every active project up to its target."""
        with SessionFactory() as session:
            projects = session.scalars(select(Project).where(Project.paused_at.is_(None)).order_by(Project.id)).all()
            for project in projects:
                queue.plan_slates(session, project, now=clock(session))
                session.commit()  # nobody waits for the other projects too

    def _choose_device(self) -> None:
        """On the GPU while no stage wants it; a stage that does gets it once the queues are full."""
        if self.gpu is None:
            return
        with SessionFactory.begin() as session:
            now = clock(session)
            has_it = self.models.device == "cuda"
            if has_it and devices.is_wanted(session, self.gpu, now=now) and queue.is_filled(session):
                devices.release(session, self.gpu, self.owner, now=now)
                held = False
            elif has_it:
                held = devices.keep(session, self.gpu, self.owner, duration=CLAIM_DURATION, now=now)
            else:
                held = devices.hold_for_sampling(session, self.gpu, self.owner, duration=CLAIM_DURATION, now=now)
        self.models.move_to("cuda" if held else "cpu")

    def _let_go(self) -> None:
        if self.gpu is not None:
            with SessionFactory.begin() as session:
                devices.release(session, self.gpu, self.owner, now=clock(session))

    def _renew(self, session: Session, now: datetime) -> None:
        """Part of each heartbeat, in its thread: what is being worked on stays claimed."""
        self.slates.renew(session, now)
        if self.gpu is not None and self.models.device == "cuda":
            devices.keep(session, self.gpu, self.owner, duration=CLAIM_DURATION, now=now)


def completions_server(settings: Settings) -> CompletionsServer | None:
    """The server that samples; None where this process does. Raises EngineNotNamed."""
    if settings.engine == "local":
        return None
    if not settings.engine_url:
        raise EngineNotNamed()
    key = None if settings.engine_key is None else settings.engine_key.get_secret_value()
    return CompletionsServer(settings.engine_url, key, SLATES)


class EngineNotNamed(StageError):
    """The completions server has no address."""

    code = "engine_not_named"

    def __init__(self) -> None:
        super().__init__(
            "PODIUM_ENGINE is openai, and PODIUM_ENGINE_URL names no server", advice="set PODIUM_ENGINE_URL"
        )


def main() -> None:
    """Run a sampler against DATABASE_URL until SIGTERM or Ctrl-C."""
    settings = get_settings()
    logging.config.dictConfig(logs.configuration(settings, "sampler"))
    transformers_logging.disable_progress_bar()
    os.nice(NICENESS)
    torch.set_num_threads(settings.threads or os.cpu_count() or 1)
    try:
        available_device(settings.device)
        engine = terminal.reach_migrated(settings, application="podium-sampler")
        completions_server(settings)
        if store := open_store(settings):
            store.check(writes=False)
    except (CannotStart, StageError, ArtifactError) as error:
        terminal.refuse(str(error), exit_code=terminal.USAGE)
    sampler = Sampler(settings, Wakeups(engine, (SAMPLER_CHANNEL,)))
    run_until_told(
        sampler,
        engine,
        leave_after_s=STOP_TIMEOUT_S,
        place=settings.sampler_listen,
        token=settings.metrics_token,
        registry=sampler_metrics.REGISTRY,
    )


if __name__ == "__main__":
    main()
