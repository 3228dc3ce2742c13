"""Half an hour of a thousand labelers, a round training for a third of it: whether anything grows, leaks or is lost.

    python -m benchmarks.soak --workers 2 --write           half an hour, a few minutes more to fill and to clear away
    python -m benchmarks.soak --minutes 2 --labelers 50     for trying

Real processes: Postgres with fsync on, several web workers, and in the second third a trainer that fits a reward model
to what was ranked so far and improves the starter policy with PPO. Each labeler takes 20 s a slate: a lease, three
draft saves, a renewal, a submit. All slates are there from the beginning. The load generator is on the same machine. A
thirtieth of the time is one line: how long requests took, each process's own share of memory (PSS), connections to the
database. The first tenth is left out of what is judged. Memory is flat when the 95 % interval of its slope, from
a straight line through those lines, holds nothing above FLAT_MB a minute; on a short run it says nothing. Prints
tables; --write puts them into results/soak.md. Ends with 1 when something was lost, ranked twice, refused or too slow.
"""

import argparse
import asyncio
import contextlib
import datetime
import gc
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import psycopg
import uvloop
from scipy import stats
from sqlalchemy import text, update
from sqlalchemy.orm import Session

from app import db
from app.policies.service import import_first_version
from app.projects.models import Project
from app.projects.starter import inspect_starter
from app.prompts.models import Prompt, Split
from app.rounds.errors import RoundIsOver
from app.rounds.models import Round, Stage
from app.rounds.service import cancel_round, start_round
from benchmarks.web import latencies, machine, percentiles
from benchmarks.web_load import REQUESTS, Connection, Timings, run_clients
from benchmarks.web_server import NUM_PROMPTS, SLUG, K, Server, family, proportional_kb, serve

RESULTS = Path(__file__).parent / "results" / "soak.md"
PARTS = 30  # lines of the table
WARM_UP, TRAINING = 3, range(10, 20)  # of those parts
SPARE_SLATES = 1.3
P95_MS, P99_MS, FLAT_MB = 100, 250, 1.0
SMALLEST_WORKER_MB = 20  # below are helpers of the web's supervisor
STOP_S = 120
MISSING = """
SELECT count(*) FROM unnest(%s::uuid[]) AS acknowledged(id)
WHERE NOT EXISTS (SELECT FROM ranking WHERE ranking.id = acknowledged.id)
"""
CONNECTIONS = "SELECT split_part(application_name, '-', 2), count(*) FROM pg_stat_activity GROUP BY 1"


@dataclass(frozen=True)
class Part:
    """A thirtieth of the run. memory: process -> MB.  connections: program -> how many it holds of the database."""

    minute: float
    trains: bool
    seconds: float
    timings: Timings
    memory: dict[str, float]
    connections: dict[str, int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--labelers", type=int, default=1000)
    parser.add_argument("--slate-seconds", type=float, default=20, help="a person's time on a slate")
    parser.add_argument("--workers", type=int, default=2, help="web processes")
    parser.add_argument("--threads", type=int, default=1, help="cores that the trainer may compute on")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    arguments = parser.parse_args()
    slates_each = arguments.minutes * 60 / arguments.slate_seconds + 1
    with serve(
        num_slates=int(SPARE_SLATES * arguments.labelers * slates_each),
        num_labelers=arguments.labelers,
        overlap=1,
        workers=arguments.workers,
    ) as server:
        prepare(server)
        gc.collect()
        gc.freeze()  # the load generator's pauses are not the server's
        parts, told_of_round = uvloop.run(soak(server, arguments))
        lost = missing(server, parts)
        duplicates = server.duplicates()
    wrong = problems(parts, lost, duplicates)
    told = report(arguments, parts, told_of_round, lost, duplicates, wrong)
    print(told)
    if arguments.write:
        RESULTS.write_text(told + "\n", encoding="utf-8")
    sys.exit(1 if wrong else 0)


def prepare(server: Server) -> None:
    """What a round needs beside rankings: a policy to start from, and prompts of every split."""
    engine = db.connect(server.url, application="podium-soak")
    with Session(engine) as session, session.begin():
        project = session.execute(text("SELECT id FROM project WHERE slug = :slug"), {"slug": SLUG}).scalar_one()
        import_first_version(session, session.get_one(Project, project), inspect_starter(), now=db.clock(session))
        for split, last in ((Split.VALIDATION, "3"), (Split.TEST, "7")):
            session.execute(update(Prompt).where(Prompt.group_key.endswith(last)).values(split=split))
    engine.dispose()


async def soak(server: Server, arguments: argparse.Namespace) -> tuple[list[Part], str]:
    """Let everybody work; returns the lines, and what became of the round."""
    await until_it_answers(server)
    duration_s = arguments.minutes * 60
    timings, parts, postmaster = Timings(), list[Part](), server.postmaster()
    began = at = time.perf_counter()
    labelers = asyncio.create_task(
        run_clients(
            server.port,
            SLUG,
            server.keys,
            duration_s=duration_s,
            slate_s=arguments.slate_seconds,
            seed=1,
            timings=timings,
        )
    )
    trainer: subprocess.Popen[bytes] | None = None
    told_of_round = ""
    try:
        for number in range(PARTS):
            if number == TRAINING.start:
                trainer = await asyncio.to_thread(start_training, server, arguments.threads)
            if trainer is not None and number == TRAINING.stop:
                told_of_round = await asyncio.to_thread(stop_training, server, trainer)
            await asyncio.sleep(max(0.0, began + (number + 1) * duration_s / PARTS - time.perf_counter()))
            memory, connections = await asyncio.to_thread(look, server, postmaster, trainer)
            now = time.perf_counter()
            parts.append(Part((now - began) / 60, number in TRAINING, now - at, timings.take(), memory, connections))
            at = now
    finally:
        if trainer is not None and trainer.poll() is None:
            trainer.kill()
    await labelers
    parts.append(Part((time.perf_counter() - began) / 60, False, time.perf_counter() - at, timings, {}, {}))
    return parts, told_of_round


async def until_it_answers(server: Server) -> None:
    """Its address is known before its workers have started: the clock does not run while they do."""
    connection = Connection(server.port, server.keys[0])
    await connection.call("GET", "/api/v1/me", {})
    await connection.close()


def start_training(server: Server, threads: int) -> "subprocess.Popen[bytes]":
    """Start a round on all that was ranked so far, longer than there is time, and a trainer for it."""
    engine = db.connect(server.url, application="podium-soak")
    with Session(engine) as session, session.begin():
        project = session.get_one(Project, 1)
        start_round(
            session,
            project,
            stages=("reward", "ppo"),
            overrides={"ppo": {"num_steps": 100_000}},
            account=None,
            now=db.clock(session),
            evaluation_comparisons=0,
        )
    engine.dispose()
    environment = {
        **os.environ,
        "DATABASE_URL": server.url,
        "PODIUM_HOME": str(server.home),
        "PODIUM_DEVICE": "cpu",
        "PODIUM_THREADS": str(threads),
        "PODIUM_LOG_LEVEL": "warning",
    }
    return subprocess.Popen([sys.executable, "-m", "trainer.worker"], env=environment)


def stop_training(server: Server, trainer: "subprocess.Popen[bytes]") -> str:
    """Call the round off, send the trainer home, and say how far they came."""
    engine = db.connect(server.url, application="podium-soak")
    with Session(engine) as session, contextlib.suppress(RoundIsOver), session.begin():
        cancel_round(session, session.get_one(Round, 1), account=None, now=db.clock(session))
    deadline = time.monotonic() + STOP_S
    while time.monotonic() < deadline:
        with Session(engine) as session:
            stages = session.query(Stage).order_by(Stage.position).all()
            round = session.get_one(Round, 1)
            if round.finished_at is not None:
                break
        time.sleep(1)
    trainer.terminate()
    trainer.wait(STOP_S)
    with Session(engine) as session:
        found = session.execute(text("SELECT stage_id, max(step) AS step FROM metric GROUP BY stage_id"))
        steps = {row.stage_id: row.step for row in found}
    engine.dispose()
    of_stages = [
        f"{stage.recipe} {stage.state}" + (f" at step {steps[stage.id]}" if stage.id in steps else "")
        for stage in stages
    ]
    return (
        f"{round.state}; {', '.join(of_stages)}; {'' if trainer.returncode == 0 else 'the trainer ended badly'}".rstrip(
            "; "
        )
    )


def look(
    server: Server, postmaster: int, trainer: "subprocess.Popen[bytes] | None"
) -> tuple[dict[str, float], dict[str, int]]:
    """Memory of each process in MB, and connections of each program, now."""
    web = {pid: proportional_kb(pid) / 1024 for pid in family(server.process.pid)}
    memory = {f"web {pid}": size for pid, size in web.items() if size >= SMALLEST_WORKER_MB}
    memory["postgres"] = sum(proportional_kb(pid) for pid in family(postmaster)) / 1024
    if trainer is not None and trainer.poll() is None:
        memory["trainer"] = sum(proportional_kb(pid) for pid in family(trainer.pid)) / 1024
    with psycopg.connect(server.url) as connection:
        connections = {name: num for name, num in connection.execute(CONNECTIONS) if name in ("web", "trainer")}
    return memory, connections


def missing(server: Server, parts: Sequence[Part]) -> int:
    """Submits that were acknowledged and are not there."""
    ids = list(chain.from_iterable(part.timings.acknowledged for part in parts))
    with psycopg.connect(server.url) as connection:
        row = connection.execute(MISSING, (ids,)).fetchone()
    assert row is not None
    return int(row[0])


def judged(parts: Sequence[Part], *, trains: bool) -> Timings:
    """What was measured while a round trained, or while none did, after the warm-up."""
    found = Timings()
    for part in parts[WARM_UP:]:
        if part.trains == trains:
            for what in REQUESTS:
                found.seconds[what] += part.timings.seconds[what]
            found.pairs += part.timings.pairs
            found.errors += part.timings.errors
    return found


def slope(parts: Sequence[Part], process: str) -> tuple[float, float, float]:
    """MB a minute, with the ends of its 95 % interval (ordinary least squares, Student's t)."""
    points = [(part.minute, part.memory[process]) for part in parts[WARM_UP:] if process in part.memory]
    line = stats.linregress(*zip(*points, strict=True))
    half = stats.t.ppf(0.975, len(points) - 2) * line.stderr
    return line.slope, line.slope - half, line.slope + half


def lasting(parts: Sequence[Part]) -> list[str]:
    """The processes that were there from the first line to the last."""
    looked = [part.memory.keys() for part in parts if part.memory]
    return [name for name in looked[0] if all(name in there for there in looked)]


def problems(parts: Sequence[Part], lost: int, duplicates: int) -> list[str]:
    """What the run shows to be wrong, in words."""
    errors = list(chain.from_iterable(part.timings.errors for part in parts))
    every = percentiles(latencies(judged(parts, trains=False))["every request"])
    web = [part.connections.get("web", 0) for part in parts if part.connections]
    found = {
        f"{len(errors)} requests failed: {', '.join(sorted(set(errors))[:5])}": bool(errors),
        f"{lost} acknowledged rankings are missing": lost > 0,
        f"{duplicates} slates were ranked too often": duplicates > 0,
        f"p95 is {every['p95']} ms while nothing trains, above {P95_MS}": every["p95"] > P95_MS,
        f"p99 is {every['p99']} ms while nothing trains, above {P99_MS}": every["p99"] > P99_MS,
        f"connections of the web grew from {web[WARM_UP]} to {web[-1]}": web[-1] > max(web[: TRAINING.start]),
        "a web process ended": len([name for name in parts[0].memory if name.startswith("web")])
        != len([name for name in lasting(parts) if name.startswith("web")]),
        **{f"{name} grows": slope(parts, name)[2] > FLAT_MB for name in lasting(parts) if name.startswith("web")},
    }
    return [words for words, is_so in found.items() if is_so]


def report(
    arguments: argparse.Namespace,
    parts: Sequence[Part],
    told_of_round: str,
    lost: int,
    duplicates: int,
    wrong: list[str],
) -> str:
    num = sum(len(part.timings.acknowledged) for part in parts)
    return "\n".join(
        [
            "# Half an hour of a thousand labelers",
            "",
            f"{datetime.datetime.now(datetime.UTC).date()}, {machine()}.",
            f"{arguments.labelers:,} labelers at {arguments.slate_seconds:g} s a slate for {arguments.minutes:g}"
            f" minutes; {arguments.workers} web processes, Postgres with fsync on, K = {K}, {NUM_PROMPTS} prompts;"
            f" load generator and a trainer with {arguments.threads} thread(s) on the same machine.",
            "",
            f"    {shlex.join(['python', '-m', 'benchmarks.soak', *sys.argv[1:]])}",
            "",
            f"{num:,} submits were acknowledged: {lost} missing, {duplicates} slates ranked too often,"
            f" {sum(len(part.timings.errors) for part in parts)} requests failed. The round: {told_of_round}.",
            "",
            *([f"- **{words}**" for words in wrong] or ["Nothing was out of bounds."]),
            "",
            "Milliseconds, p50 / p95 / p99, after the first tenth.",
            "",
            "| request | while nothing trains | while a round trains |",
            "| --- | --- | --- |",
            *request_lines(parts),
            "",
            "| process | MB at first | at last | slope, MB a minute, and its 95 % interval |",
            "| --- | --- | --- | --- |",
            *memory_lines(parts),
            "",
            "| minute | trains | submits/s | every request p50 / p95 / p99 | errors | web, MB | postgres, MB"
            " | trainer, MB | connections of web, trainer |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
            *(line_of(part) for part in parts if part.memory),
        ]
    )


def request_lines(parts: Sequence[Part]) -> list[str]:
    quiet, busy = (latencies(judged(parts, trains=trains)) for trains in (False, True))
    return [f"| {what} | {spread(quiet[what])} | {spread(busy[what])} |" for what in quiet]


def spread(seconds: list[float]) -> str:
    return " / ".join(str(value) for value in percentiles(seconds).values()) if seconds else "none"


def memory_lines(parts: Sequence[Part]) -> list[str]:
    lines = []
    for name in lasting(parts):
        sizes = [part.memory[name] for part in parts if part.memory]
        value, low, high = slope(parts, name)
        lines.append(f"| {name} | {sizes[WARM_UP]:.0f} | {sizes[-1]:.0f} | {value:+.2f} ({low:+.2f} to {high:+.2f}) |")
    return lines


def line_of(part: Part) -> str:
    web = sum(size for name, size in part.memory.items() if name.startswith("web"))
    trainer = f"{part.memory['trainer']:.0f}" if "trainer" in part.memory else ""
    every: Any = latencies(part.timings)["every request"]
    return (
        f"| {part.minute:.1f} | {'yes' if part.trains else ''} | {len(part.timings.pairs) / part.seconds:.1f}"
        f" | {spread(every)} | {len(part.timings.errors)} | {web:.0f} | {part.memory['postgres']:.0f} | {trainer}"
        f" | {part.connections.get('web', 0)}, {part.connections.get('trainer', 0)} |"
    )


if __name__ == "__main__":
    main()
