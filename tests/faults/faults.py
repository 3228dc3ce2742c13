"""What can go wrong, each as a function of the installation and of chances: it returns when the cause is over.

What follows from it may not be over then: whoever calls waits until the installation has recovered.
"""

import contextlib
import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from tests.faults.world import NeverCame, World, kill

Fault = Callable[[World, Random], None]
BALLAST_BYTES = 1 << 20
PAUSES, PAUSE_AGAIN_S = 20, 0.2


def kill_web(world: World, rng: Random) -> None:
    """kill -9 of the process that starts the web workers."""
    kill(world.pid("web"))


def kill_web_worker(world: World, rng: Random) -> None:
    """kill -9 of one web worker of the two."""
    kill(rng.choice(world.web_workers() or [None]))


def kill_sampler(world: World, rng: Random) -> None:
    """kill -9 of the sampler."""
    kill(world.pid("sampler"))


def kill_trainer(world: World, rng: Random) -> None:
    """kill -9 of the trainer that runs a stage; its recipe goes with it, and the other trainer takes over."""
    _, trainer = world.running_recipe()
    kill(trainer)


def kill_recipe(world: World, rng: Random) -> None:
    """kill -9 of a recipe between two of its steps, or in one."""
    recipe, _ = world.running_recipe()
    time.sleep(rng.random())
    kill(recipe)


def kill_postgres(world: World, rng: Random) -> None:
    """kill -9 of the postmaster; it comes back after up to three seconds."""
    world.postgres_may_run = False
    try:
        kill(world.postmaster())
        time.sleep(3 * rng.random())
    finally:
        world.postgres_may_run = True


def kill_backend(world: World, rng: Random) -> None:
    """kill -9 of one of Postgres's own processes: it ends all the others and recovers from its log."""
    rows = world.ask("SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'podium-%' ORDER BY pid")
    kill(rng.choice([row["pid"] for row in rows] or [None]))


def kill_everything(world: World, rng: Random) -> None:
    """All of it at once, as when the power fails."""
    for pid in (*world.pids(), *world.web_workers(), world.postmaster()):
        kill(pid)


def end_connections(world: World, rng: Random) -> None:
    """pg_terminate_backend of every connection of ours."""
    world.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'podium-%'")


def cut_database(world: World, rng: Random) -> None:
    """Every connection to the database breaks, several times in a row."""
    for _ in range(rng.randint(1, 4)):
        world.database.cut()
        time.sleep(0.5 * rng.random())


def stall_database(world: World, rng: Random) -> None:
    """Nothing passes between our processes and the database for some seconds."""
    world.database.hold()
    time.sleep(1 + 3 * rng.random())
    world.database.release(spread_s=0.5)


def cut_browsers(world: World, rng: Random) -> None:
    """Every connection of a browser breaks, several times in a row."""
    for _ in range(rng.randint(2, 6)):
        world.browsers.cut()
        time.sleep(0.3 * rng.random())


def reorder_requests(world: World, rng: Random) -> None:
    """Requests are held back for longer than a browser waits, then arrive in another order, after their retries."""
    world.browsers.hold()
    time.sleep(2 + 3 * rng.random())
    world.browsers.release(spread_s=2.0)
    time.sleep(2.0)


def lose_answers(world: World, rng: Random) -> None:
    """Requests arrive and are done; their answers never come back."""
    world.browsers.lose_answers(True)
    time.sleep(1 + 3 * rng.random())
    world.browsers.lose_answers(False)
    world.browsers.cut()


def pause_web_worker(world: World, rng: Random) -> None:
    """SIGSTOP of a web worker for up to seven seconds: it answers late, or is replaced."""
    with paused(rng.choice(world.web_workers() or [None])):
        time.sleep(1 + 6 * rng.random())


def pause_sampler(world: World, rng: Random) -> None:
    """SIGSTOP of the sampler past the deadline of its claims."""
    with overdue(world, world.pid("sampler")):
        time.sleep(2 * rng.random())


def pause_trainer(world: World, rng: Random) -> None:
    """SIGSTOP of the trainer that runs a stage, past its deadline: another takes over, then the first comes back."""
    _, trainer = world.running_recipe()
    with overdue(world, trainer):
        time.sleep(3 + 3 * rng.random())


def pause_recipe(world: World, rng: Random) -> None:
    """SIGSTOP of a recipe for up to three seconds."""
    recipe, _ = world.running_recipe()
    with paused(recipe):
        time.sleep(3 * rng.random())


def fill_artifacts(world: World, rng: Random) -> None:
    """The disk of round folders is full while a recipe runs."""
    world.running_recipe()
    with full(world.artifacts):
        time.sleep(2 + 2 * rng.random())


def fill_database(world: World, rng: Random) -> None:
    """The disk of the database is full: what cannot be stored must not be acknowledged."""
    with full(world.postgres):
        time.sleep(2 + 2 * rng.random())


def two_kills(world: World, rng: Random) -> None:
    """Two processes of different kinds at the same moment."""
    first, second = rng.sample([kill_web, kill_sampler, kill_postgres, kill_backend, kill_trainer], 2)
    first(world, rng)
    second(world, rng)


KINDS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        kill_web,
        kill_web_worker,
        kill_sampler,
        kill_trainer,
        kill_recipe,
        kill_postgres,
        kill_backend,
        kill_everything,
        two_kills,
        end_connections,
        cut_database,
        stall_database,
        cut_browsers,
        reorder_requests,
        lose_answers,
        pause_web_worker,
        pause_sampler,
        pause_trainer,
        pause_recipe,
        fill_artifacts,
        fill_database,
    )
}
NEEDS_DISKS = ("fill_artifacts", "fill_database")


def kinds_for(world: World) -> list[str]:
    """Those that this machine allows: only who may mount a small disk can fill one."""
    return [name for name in KINDS if world.has_disks or name not in NEEDS_DISKS]


def in_order(names: list[str], seed: int) -> Iterator[str]:
    """Each kind once before any comes again, in an order of the seed's."""
    turn = 0
    while True:
        yield from Random(f"{seed}/turn/{turn}").sample(names, len(names))
        turn += 1


@contextlib.contextmanager
def paused(pid: int | None) -> Iterator[None]:
    """The process stands still meanwhile."""
    if pid is None:
        yield
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def overdue(world: World, pid: int | None) -> Iterator[None]:
    """The process stands still meanwhile, past the deadlines of its claims.

    One that was stopped with a claim locked goes on and is stopped again: neither we nor a successor get at that row.
    """
    for _ in range(PAUSES):
        with paused(pid):
            if pid is None or world.hasten(pid):
                yield
                return
        time.sleep(PAUSE_AGAIN_S)
    raise NeverCame(f"process {pid} always had its claims locked")


@contextlib.contextmanager
def full(disk: Path) -> Iterator[None]:
    """Not a byte is free on the disk meanwhile: what others free is taken as well."""
    ballast = disk / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file:
            for size in (BALLAST_BYTES, 4096, 1):
                with contextlib.suppress(_DiskIsFull):
                    while True:
                        _write(file.fileno(), size)
        yield
    finally:
        ballast.unlink(missing_ok=True)


class _DiskIsFull(Exception):
    """Nothing more can be written."""


def _write(descriptor: int, size: int) -> None:
    try:
        os.write(descriptor, bytes(size))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise _DiskIsFull from error
