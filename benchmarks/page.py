"""What the ranking page weighs, and how soon it is there: in Chromium, against a real server on this machine.

    python -m benchmarks.page             ten openings with an empty cache, ten with a full one, twenty submits
    python -m benchmarks.page --write     the same, into benchmarks/results/page.md

Weight is what came over the wire, headers included. The page is usable when a key works: keys are pressed from the
start until one moves the highlight. From a submit to the next text is from the chord to the frame that shows the next
slate, once with the server's answers as they come and once with each delayed by half a second: it must not depend on
that.
"""

import argparse
import datetime
import json
import shlex
import shutil
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, CDPSession, Page, sync_playwright
from sqlalchemy import select, text

from app import db, security
from app.people import sessions
from app.people.models import Account
from app.projects.models import Guidelines, Project
from app.quality.entry_models import GuidelinesAcceptance
from benchmarks.web import machine
from benchmarks.web_server import SLUG, K, Server, serve

RESULTS = Path(__file__).parent / "results" / "page.md"
GUIDELINES = Path("trainer/starter/guidelines.md")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
DELAY_MS = 500
SETTLED_MS = 650  # the chord is deaf for 600 after a slate appears
COMPLETION = """\
The shortest way is to sort the words once and to compare neighbours; **equal ones stand side by side** then.

```python
def duplicates(words: list[str]) -> set[str]:
    ordered = sorted(words)
    return {{a for a, b in zip(ordered, ordered[1:]) if a == b}}
```

It takes $O(n \\log n)$ steps. For a list of {} words that is nothing to think about, and it keeps no second copy.
"""
# Press a key until one works: B highlights the second completion. The page's clock begins with the navigation.
PRESS_UNTIL_ONE_WORKS = """
const press = setInterval(() => {
  document.body?.dispatchEvent(new KeyboardEvent("keydown", { key: "b", code: "KeyB", bubbles: true }));
  if (!document.querySelector(".completion[data-letter=B].is-here")) return;
  clearInterval(press);
  window.usableAfterMs = performance.now();
}, 5);
"""
# From the chord to the first frame that has shown another slate.
TIME_SUBMITS = """
window.submitsMs = [];
const leaseInView = () => document.querySelector("#screen form.slate")?.dataset.lease;
document.addEventListener("keydown", (event) => {
  if (!event.ctrlKey || event.key !== "Enter") return;
  const [before, pressed] = [leaseInView(), event.timeStamp];
  const look = () => {
    const now = leaseInView();
    if (!now || now === before) requestAnimationFrame(look);
    else requestAnimationFrame(() => window.submitsMs.push(performance.now() - pressed));
  };
  requestAnimationFrame(look);
}, true);
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--openings", type=int, default=10, help="of the page, with each kind of cache")
    parser.add_argument("--submits", type=int, default=20, help="with each delay")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    arguments = parser.parse_args()
    with serve(num_slates=4 * arguments.submits + 100, num_labelers=1, overlap=1, workers=1) as server:
        token = prepare(server)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
            open_once(browser, server, token)  # the server builds its forms and templates on the first request
            report = {
                "benchmark": "page",
                "openings": {
                    "an empty cache": [open_once(browser, server, token) for _ in range(arguments.openings)],
                    "a full cache": open_again(browser, server, token, arguments.openings),
                },
                "submits_ms": {
                    delay: submit_often(browser, server, token, arguments.submits, delay) for delay in (0, DELAY_MS)
                },
                "machine": machine(),
            }
            browser.close()
    print(json.dumps(report))
    if arguments.write:
        RESULTS.write_text(table(report), encoding="utf-8")


def prepare(server: Server) -> str:
    """Texts and guidelines as people have them, and the one labeler signed in; returns the cookie's token."""
    engine = db.connect(server.url, application="podium-page")
    with db.SessionFactory.begin() as session:
        now = db.clock(session)
        project = session.scalars(select(Project).where(Project.slug == SLUG)).one()
        account = session.scalars(select(Account)).one()
        guidelines = Guidelines(project_id=project.id, version=1, markdown=GUIDELINES.read_text(encoding="utf-8"))
        session.add(guidelines)
        session.flush()
        session.add(GuidelinesAcceptance(account_id=account.id, guidelines_id=guidelines.id, accepted_at=now))
        session.execute(text("UPDATE completion SET text = format(:text, position)"), {"text": sql_format(COMPLETION)})
        token = sessions.open_session(session, account, user_agent="benchmark", now=now)
    engine.dispose()
    return token


def sql_format(words: str) -> str:
    """The text for Postgres's format(), each completion's position in its place."""
    return words.format("%s")


@contextmanager
def signed_in(browser: Browser, server: Server, token: str) -> Iterator[BrowserContext]:
    address = f"http://127.0.0.1:{server.port}"
    context = browser.new_context(base_url=address, viewport={"width": 1280, "height": 800})
    context.add_cookies([{"name": security.SESSION_COOKIE, "value": token, "url": address}])
    yield context
    context.close()


def open_once(browser: Browser, server: Server, token: str) -> dict[str, float]:
    """One opening by somebody who was never here."""
    with signed_in(browser, server, token) as context:
        return open_page(context.new_page())


def open_again(browser: Browser, server: Server, token: str, num: int) -> list[dict[str, float]]:
    """Openings by somebody who was here before."""
    with signed_in(browser, server, token) as context:
        open_page(context.new_page())
        return [open_page(context.new_page()) for _ in range(num)]


def open_page(page: Page) -> dict[str, float]:
    """Open the ranking page: what came over the wire until a key worked, and after how long it did."""
    wire = page.context.new_cdp_session(page)
    sizes = bytes_received(wire)
    page.add_init_script(PRESS_UNTIL_ONE_WORKS)
    with page.expect_response("**/screens"):  # the slate ahead: it is no part of the page's weight
        page.goto(f"/projects/{SLUG}/rank")
        page.wait_for_function("window.usableAfterMs")
    first_text = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"
    seen = page.evaluate(f"[window.usableAfterMs, {first_text}]")
    page.close()
    files = [size for address, size in sizes.items() if not address.endswith("/screens")]
    return {"usable_ms": seen[0], "first_text_ms": seen[1], "kb": sum(files) / 1000, "requests": len(files)}


def bytes_received(wire: CDPSession) -> dict[str, float]:
    """Address -> bytes over the wire, filled as answers come; what comes from the cache is not in it."""
    addresses: dict[str, str] = {}
    sizes: dict[str, float] = {}
    wire.on("Network.responseReceived", lambda event: addresses.update({event["requestId"]: event["response"]["url"]}))

    def on_finished(event: dict[str, Any]) -> None:
        if event["encodedDataLength"] and event["requestId"] in addresses:
            sizes[addresses[event["requestId"]]] = event["encodedDataLength"]

    wire.on("Network.loadingFinished", on_finished)
    wire.send("Network.enable")
    return sizes


def submit_often(browser: Browser, server: Server, token: str, num: int, delay_ms: int) -> list[float]:
    """Milliseconds from the chord to the next text, with each of the server's answers delayed."""
    with signed_in(browser, server, token) as context:
        page = context.new_page()
        page.add_init_script(TIME_SUBMITS)
        with page.expect_response("**/screens"):
            page.goto(f"/projects/{SLUG}/rank")
        network = {"offline": False, "latency": delay_ms, "downloadThroughput": -1, "uploadThroughput": -1}
        wire = page.context.new_cdp_session(page)
        wire.send("Network.enable")
        wire.send("Network.emulateNetworkConditions", network)
        for _ in range(num):
            page.wait_for_timeout(SETTLED_MS)
            for rank in range(1, K + 1):
                page.keyboard.press(str(rank))
            with page.expect_response("**/screens"):  # as a person would, who reads before they submit
                page.keyboard.press("Control+Enter")
        page.wait_for_function(f"window.submitsMs.length === {num}")
        return list(page.evaluate("window.submitsMs"))


def table(report: dict[str, Any]) -> str:
    lines = [
        "# The ranking page",
        "",
        f"{datetime.datetime.now(datetime.UTC).date()}, {report['machine']}.",
        f"One web process, Postgres and Chromium on this machine; slates of {K} with code and formulas; guidelines.",
        "",
        f"    {shlex.join(['python', '-m', 'benchmarks.page', *sys.argv[1:]])}",
        "",
        "Median and worst. To reach: under 100 KB without fonts (the page brings none), usable in under a second. The",
        "slate ahead is fetched after that and is not in the weight.",
        "",
        "| opened with | over the wire | requests | first text, ms | a key works, ms |",
        "| --- | --- | --- | --- | --- |",
    ]
    for cache, openings in report["openings"].items():
        kb, requests = max(seen["kb"] for seen in openings), max(seen["requests"] for seen in openings)
        first_text, usable = (both([seen[what] for seen in openings]) for what in ("first_text_ms", "usable_ms"))
        lines.append(f"| {cache} | {kb:.1f} KB | {requests} | {first_text} | {usable} |")
    lines += ["", "| answers delayed by | from the submit to the next text, ms |", "| --- | --- |"]
    lines += [f"| {delay} ms | {both(values)} |" for delay, values in report["submits_ms"].items()]
    return "\n".join(lines) + "\n"


def both(values: list[float]) -> str:
    return f"{statistics.median(values):.0f} / {max(values):.0f}"


if __name__ == "__main__":
    main()
