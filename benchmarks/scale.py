"""How long each page waits in a project of a million rankings and ten million completions.

    python -m benchmarks.scale                                      50,000 rankings, 500,000 completions
    python -m benchmarks.scale --rankings 1000000 --completions 10000000 --write
    python -m benchmarks.scale --keep DIR                           fill DIR, or walk what it was filled with before

Every GET address of pages and API is asked for, as the routes themselves name them, by an admin, a researcher and a
labeler (the first of them who is let in), with ids that exist and with the choices that cost most; then a labeler
ranks and is given prompts to answer, and a sampler looks what it is to sample. Asked for in this process through the
whole product: middleware, statements, templates. The first time is told beside the median of those after it, with the
slowest statement and how many there were; where the answer is that a report is being made, the time begins when it has
been. Files (exports) and streams (events) are left out: they are told by their rate. The folder (8 GB) is deleted
afterwards. Prints tables, slowest first; --write puts them into results/scale.md.
"""

import argparse
import datetime
import os
import platform
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

from fastapi.routing import APIRoute, iter_route_contexts
from fastapi.testclient import TestClient
from sqlalchemy import Engine, event, text
from sqlalchemy.orm import Session

from app import db, embedded_postgres, migrate, security
from app.labeling.queue import plan_slates
from app.main import create_app
from app.people.models import Account, Membership, Role
from app.people.sessions import open_session
from app.projects.models import Project
from app.settings import Settings
from benchmarks import explorer, scale_data, scale_reports
from benchmarks.scale_data import SLUG

RESULTS = Path(__file__).parent / "results" / "scale.md"
BAR_MS = 300
TIMES = 4
LONGEST_REPORT_S = 600
CYCLES = 50
PLANNED = 20  # slates
IS_FRESH = """
SELECT count(*) FROM slate
WHERE kind IN ('training', 'pair')
    AND (state = 'sampling' OR state = 'ready' AND NOT EXISTS (SELECT FROM lease WHERE slate_id = slate.id))
"""
# What is written as it is read, to its end, however large; or never ends.
FILES = re.compile(
    r"/(events|export|data|live/events|files)$|/(compare|pairs|strengths|comparisons|accuracies|counts|samples)\.csv$"
)
EXAMPLES = {
    "slug": SLUG,
    "snapshot_id": "4",
    "one": "3",
    "other": "4",
    "recipe": "reward",
    "labeler_id": "7",
    "account_id": "7",
    "version": "1",
    "content": "rankings",
    "kind": "plain",
    "evaluation_id": "1",
    "other_id": "2",
    "left_id": "1",
    "right_id": "10",
    "metric": "loss",
}
ROUNDS = urlencode({"rounds": range(1, scale_data.SNAPSHOTS + 1)}, doseq=True)
# Addresses whose answer hangs on a choice, with one that costs more than none.
CHOICES = (
    "/projects/{slug}/slates?state=done",
    "/projects/{slug}/slates?state=retired&kind=training",
    "/projects/{slug}/slates?version=3",
    "/projects/{slug}/slates?state=done&kind=gold&version=9",
    "/projects/{slug}/prompts?split=test",
    "/projects/{slug}/quality?between=all",
    "/projects/{slug}/quality?prompt_kind=plain",
    "/projects/{slug}/audit?action=ranking.retract",
    "/projects/{slug}/datasets/compare?one=3&other=4",
    "/projects/{slug}/reward-models/evaluations/1/disagreements?page=700",
    "/projects/{slug}/reward-models/compare?first=1&second=2",
    f"/projects/{{slug}}/rounds/compare?{ROUNDS}",
    f"/projects/{{slug}}/rounds/compare/ppo/charts/loss?{ROUNDS}",
    f"/projects/{{slug}}/rounds/compare/ppo/charts/loss.svg?{ROUNDS}",
)


@dataclass
class Asked:
    """What one address took. statements: of the last time, text and seconds, in their order."""

    address: str
    who: str
    seconds: list[float] = field(default_factory=list)
    statements: list[tuple[str, float]] = field(default_factory=list)
    status: int = 0

    @property
    def first_ms(self) -> float:
        return 1000 * self.seconds[0]

    @property
    def median_ms(self) -> float:
        return 1000 * statistics.median(self.seconds[1:])

    @property
    def slowest_statement(self) -> tuple[str, float]:
        return max(self.statements, key=lambda each: each[1], default=("", 0.0))


@dataclass(frozen=True)
class Person:
    """Somebody who is signed in, in the one client there is: its connections live in one event loop."""

    client: TestClient
    who: str
    token: str

    def send(self, method: str, address: str, body: Any = None) -> Any:
        proof = {"cookie": f"{security.SESSION_COOKIE}={self.token}", "x-csrf-token": security.csrf_token(self.token)}
        return self.client.request(method, address, json=body, headers=proof)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rankings", type=int, default=50_000)
    parser.add_argument("--completions", type=int, default=500_000, help="those of the rankings included")
    parser.add_argument("--labelers", type=int, default=500)
    parser.add_argument("--only", default="", help="a regular expression: addresses that are asked for")
    parser.add_argument("--keep", type=Path, help="a folder for the database that stays")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    arguments = parser.parse_args()
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="podium-scale-"))
    try:
        url = embedded_postgres.start(folder / "postgres", fsync=False)
        engine = db.connect(url)
        filled = [] if is_filled(engine) else filled_with(engine, url, folder, arguments)
        asked, left_out = walk(engine, url, folder, re.compile(arguments.only))
        told = report(arguments, sizes(engine), filled, asked, left_out)
        engine.dispose()
    finally:
        embedded_postgres.stop(folder / "postgres")
        if arguments.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(told)
    if arguments.write:
        RESULTS.write_text(told + "\n", encoding="utf-8")


def is_filled(engine: Engine) -> bool:
    with engine.connect() as connection:
        return connection.execute(text("SELECT to_regclass('project') IS NOT NULL")).scalar_one()


def filled_with(engine: Engine, url: str, folder: Path, arguments: argparse.Namespace) -> list[tuple[str, float]]:
    migrate.upgrade(engine)
    filled = scale_data.fill(engine, arguments.rankings, arguments.completions, arguments.labelers)
    start = time.perf_counter()
    scale_reports.write(engine, Settings(home=folder, DATABASE_URL=url))
    return [*filled, ("reports on reward models", time.perf_counter() - start)]


def walk(engine: Engine, url: str, folder: Path, only: re.Pattern[str]) -> tuple[list[Asked], list[str]]:
    """Every address, and those that were not asked for with the reason."""
    app = create_app(Settings(home=folder, DATABASE_URL=url))
    statements: list[tuple[str, float]] = []
    with Session(engine) as session, session.begin():
        tokens = {role: token_of(session, role) for role in ("admin", "researcher", "labeler")}
        shared = session.execute(text("SELECT slate_id FROM ranking_facts WHERE is_shared LIMIT 1")).scalar_one()
        ranking = session.execute(text("SELECT ranking_id FROM ranking_facts LIMIT 1")).scalar_one()
    ids = EXAMPLES | {"slate_id": str(shared), "ranking_id": str(ranking)}
    asked: list[Asked] = []
    left_out: list[str] = []
    with TestClient(app, follow_redirects=False, raise_server_exceptions=False) as client:
        for each in (engine, db.LoopSessionFactory.kw["bind"]):
            watch(each, statements)
        people = [Person(client, who, token) for who, token in tokens.items()]
        for path in addresses(app):
            if not only.search(path):
                continue
            found = None if FILES.search(path) else address_of(path, ids)
            if found is None:
                left_out.append(
                    f"{path}: {'a file or a stream' if FILES.search(path) else 'nothing of its kind is there'}"
                )
                continue
            one = ask(people, found, statements)
            (asked.append(one) if one.status < 400 else left_out.append(f"{found}: answered {one.status}"))
        if only.search("cycle"):
            asked += ranked(people[-1], statements)
            asked += prompted(people[-1], statements)
        if only.search("queue"):
            asked += planned(engine, statements)
    return asked, left_out


def token_of(session: Session, role: str) -> str:
    """Somebody of the role who has signed in; one who labels has ranked before."""
    if role == "labeler":
        account = session.get_one(Account, 7)
    else:
        account = Account(email=f"{role}-{uuid4()}@scale.test", name=role.title(), is_site_admin=role == "admin")
        session.add(account)
        session.flush()
        session.add(Membership(account_id=account.id, project_id=1, role=Role(role)))
    return open_session(session, account, user_agent=None, now=db.clock(session))


def watch(engine: Engine, statements: list[tuple[str, float]]) -> None:
    """Note each statement and its seconds. Threads beside the requests have statements of their own meanwhile."""

    def begin(_: Any, __: Any, ___: str, ____: Any, context: Any, _____: bool) -> None:
        context.begun_at = time.perf_counter()

    def end(_: Any, __: Any, statement: str, ___: Any, context: Any, ____: bool) -> None:
        now = time.perf_counter()
        statements.append((statement, now - getattr(context, "begun_at", now)))  # it may have begun before we watched

    event.listen(engine, "before_cursor_execute", begin)
    event.listen(engine, "after_cursor_execute", end)


def addresses(app: Any) -> Iterator[str]:
    """The path of each GET route in order, then those with a choice."""
    contexts = [each for each in iter_route_contexts(app.routes) if isinstance(each.original_route, APIRoute)]
    yield from (each.path for each in contexts if "GET" in each.methods and each.path is not None)
    yield from CHOICES
    for filter in explorer.FILTERS.values():
        chosen = filter.model_dump(mode="json", exclude_defaults=True)
        yield f"/projects/{SLUG}/datasets/holds?{urlencode(chosen, doseq=True)}"


def address_of(path: str, ids: dict[str, str]) -> str | None:
    """The path with ids that exist; None where there is none. Rounds, models and policies have numbers of their own."""
    numbers = {"number": "14" if "/policies/" in path else str(scale_data.SNAPSHOTS)}
    if "/charts/" in path:
        numbers["key"] = "weeks" if "/quality/" in path else "loss"
    names = re.findall(r"{(\w+)[^}]*}", path)
    if any(name not in ids | numbers for name in names):
        return None
    return re.sub(r"{(\w+)[^}]*}", lambda found: (ids | numbers)[found[1]], path)


def ask(people: Sequence[Person], address: str, statements: list[tuple[str, float]]) -> Asked:
    """The address some times, by the first who is let in; where nobody is, the first answer."""
    refused = None
    for person in people:
        found = Asked(address, person.who)
        deadline = time.monotonic() + LONGEST_REPORT_S
        while len(found.seconds) < TIMES:
            statements.clear()
            start = time.perf_counter()
            response = person.send("GET", address)
            took, found.status = time.perf_counter() - start, response.status_code
            if is_being_made(response) and time.monotonic() < deadline:
                time.sleep(1)
                continue
            found.seconds.append(took)
            if found.status >= 400:
                break
            found.statements = list(statements)
        if found.status < 400 or found.status >= 500:
            return found
        refused = refused or found
    assert refused is not None, "nobody asks"
    return refused


def is_being_made(response: Any) -> bool:
    """Whether it is a large project's first report, made beside the requests and kept from then on."""
    return response.status_code == 503 and "retry-after" in response.headers


def ranked(labeler: Person, statements: list[tuple[str, float]]) -> list[Asked]:
    """A labeler's slates, one after the other: leased and ranked."""
    next_slate, submit = Asked("POST leases", labeler.who, status=200), Asked("POST ranking", labeler.who, status=201)
    for _ in range(CYCLES):
        lease = timed(next_slate, labeler, f"/api/v1/projects/{SLUG}/leases", {"wanted": 1}, statements)["leases"][0]
        ranks = {completion["id"]: rank for rank, completion in enumerate(lease["completions"], start=1)}
        body = {"ranking_id": str(uuid4()), "ranks": ranks, "active_s": 5.0}
        timed(submit, labeler, f"/api/v1/leases/{lease['id']}/ranking", body, statements)
    return [next_slate, submit]


def prompted(labeler: Person, statements: list[tuple[str, float]]) -> list[Asked]:
    """Prompts for a labeler to answer, each given back for the next."""
    next_prompt, skip = Asked("POST writings", labeler.who, status=200), Asked("POST skip", labeler.who, status=204)
    for _ in range(CYCLES):
        answer = timed(next_prompt, labeler, f"/api/v1/projects/{SLUG}/writings", {"task": "answer"}, statements)
        timed(skip, labeler, f"/api/v1/writings/{answer['writing']['id']}/skip", {"reason": "not mine"}, statements)
    return [next_prompt, skip]


def timed(found: Asked, labeler: Person, path: str, body: Any, statements: list[tuple[str, float]]) -> Any:
    statements.clear()
    start = time.perf_counter()
    response = labeler.send("POST", path, body)
    found.seconds.append(time.perf_counter() - start)
    found.statements = list(statements)
    assert response.status_code == found.status, response.text
    return response.json() if response.content else None


def planned(engine: Engine, statements: list[tuple[str, float]]) -> list[Asked]:
    """What a sampler asks at every look, and what it makes where slates are missing; undone each time."""
    full, more = (Asked(f"queue, {what}", "sampler", status=200) for what in ("full", f"{PLANNED} slates planned"))
    for _ in range(TIMES):
        with Session(engine) as session:
            project = session.get_one(Project, 1)
            fresh = session.execute(text(IS_FRESH)).scalar_one()
            for found, missing in ((full, 0), (more, PLANNED)):
                project.queue_target = fresh + missing
                session.flush()
                statements.clear()
                start = time.perf_counter()
                assert plan_slates(session, project, now=db.clock(session)) == missing
                found.seconds.append(time.perf_counter() - start)
                found.statements = list(statements)
            session.rollback()
    return [full, more]


def sizes(engine: Engine) -> dict[str, int]:
    with engine.connect() as connection:
        return {
            table: connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
            for table in ("ranking", "ranking_item", "completion", "slate", "prompt", "lease", "snapshot_ranking")
        }


def report(
    arguments: argparse.Namespace,
    rows: dict[str, int],
    filled: list[tuple[str, float]],
    asked: list[Asked],
    left_out: list[str],
) -> str:
    slowest_first = sorted(asked, key=lambda each: max(each.first_ms, each.median_ms), reverse=True)
    above = [each for each in asked if max(each.first_ms, each.median_ms) >= BAR_MS]
    again = [each for each in asked if each.median_ms >= BAR_MS]
    day = datetime.datetime.now(tz=datetime.UTC).date()
    return "\n".join(
        [
            "# Every page in a project of some years",
            "",
            f"{day}, {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end;"
            f" {arguments.labelers} labelers. " + ", ".join(f"{num:,} of {table}" for table, num in rows.items()) + ".",
            *([f"Filled in: {', '.join(f'{what} {took:.0f} s' for what, took in filled)}."] if filled else []),
            "",
            f"    python -m benchmarks.scale {' '.join(sys.argv[1:])}",
            "",
            f"The bar is {BAR_MS} ms. {len(asked)} addresses: {len(above)} above it the first time, {len(again)} after"
            " that. Milliseconds.",
            "",
            "| address | by | first | then | statements | the slowest of them |",
            "| --- | --- | --- | --- | --- | --- |",
            *(line_of(each) for each in slowest_first),
            "",
            "Not asked for:",
            "",
            *(f"- `{each}`" for each in left_out),
        ]
    )


def line_of(each: Asked) -> str:
    statement, took = each.slowest_statement
    words = " ".join(statement.split())[:100].replace("|", "/")
    slowest = f"{1000 * took:.0f}: `{words}`" if took > 0.01 else f"{1000 * took:.0f}"
    times = f"{each.first_ms:.0f} | {each.median_ms:.0f} | {len(each.statements)} | {slowest}"
    return f"| `{each.address}` | {each.who} | {times} |"


if __name__ == "__main__":
    main()
