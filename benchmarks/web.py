"""How long labelers wait: the whole cycle over HTTP against a real server and a Postgres that syncs, on this machine.

    python -m benchmarks.web                      1, 8, 32 and 100 clients without pause, then 1,000 labelers
    python -m benchmarks.web --clients 1,32 --labelers 0

A cycle is: lease, three draft saves, one renewal, submit. The load generator runs on the same machine. After each part
the database is asked for what must never be: a slate with too many rankings that count, or two of one person, or an
acknowledged submit that is not there. Prints one JSON line; --write puts a table into benchmarks/results/web.md.
"""

import argparse
import datetime
import gc
import json
import os
import platform
import shlex
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.web_load import Timings, run_clients
from benchmarks.web_server import SLUG, K, Server, serve

RESULTS = Path(__file__).parent / "results" / "web.md"
SLATES_A_SECOND = 400  # more than any part can use, so that nobody waits for a slate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", default="1,8,32,100", help="numbers of clients that never pause")
    parser.add_argument("--seconds", type=float, default=20, help="of each part without pause")
    parser.add_argument("--labelers", type=int, default=1000, help="people who take their time; 0 leaves them out")
    parser.add_argument("--slate-seconds", type=float, default=20, help="a person's time on a slate")
    parser.add_argument("--labeler-seconds", type=float, default=120, help="of the part with people")
    parser.add_argument("--workers", type=int, default=1, help="web processes")
    parser.add_argument("--overlap", type=int, default=1, help="rankings that count, per slate")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    arguments = parser.parse_args()
    clients = [int(number) for number in arguments.clients.split(",") if number]
    num_slates = int(SLATES_A_SECOND * arguments.seconds * len(clients)) + int(
        1.5 * arguments.labelers * (arguments.labeler_seconds / arguments.slate_seconds + 1)
    )
    num_labelers = max([*clients, arguments.labelers])
    with serve(
        num_slates=num_slates, num_labelers=num_labelers, overlap=arguments.overlap, workers=arguments.workers
    ) as server:
        measure(server, "warm-up", 4, 3.0, 0.0)
        rows = [measure(server, f"{number} without pause", number, arguments.seconds, 0.0) for number in clients]
        if arguments.labelers:
            title = f"{arguments.labelers} at {arguments.slate_seconds:g} s a slate"
            rows.append(measure(server, title, arguments.labelers, arguments.labeler_seconds, arguments.slate_seconds))
    report = {"benchmark": "web", "machine": machine(), "workers": arguments.workers, "k": K, "rows": rows}
    print(json.dumps(report))
    if arguments.write:
        RESULTS.write_text(table(report, arguments), encoding="utf-8")


def measure(server: Server, title: str, num: int, duration_s: float, slate_s: float) -> dict[str, Any]:
    """One part: its latencies in milliseconds, its rate, and what the database says afterwards."""
    before, memory_before = server.rankings(), server.resident_mb()
    gc.collect()
    gc.disable()  # the load generator's pauses are not the server's
    began, cpu_before = time.perf_counter(), {**server.cpu_s(), "load generator": time.process_time()}
    timings = uvloop.run(
        run_clients(server.port, SLUG, server.keys[:num], duration_s=duration_s, slate_s=slate_s, seed=num)
    )
    took_s = time.perf_counter() - began
    gc.enable()
    cpu = {**server.cpu_s(), "load generator": time.process_time()}
    num_cycles = max(1, len(timings.pairs))
    row = {
        "what": title,
        "cycles_per_s": round(len(timings.pairs) / took_s, 1),
        "milliseconds": {what: percentiles(values) for what, values in latencies(timings).items() if values},
        "cpu_ms_per_cycle": {who: round(1000 * (cpu[who] - cpu_before[who]) / num_cycles, 1) for who in cpu},
        "errors": len(timings.errors),
        "error_kinds": sorted(set(timings.errors))[:5],
        "duplicates": server.duplicates(),
        "acknowledged_but_missing": len(timings.acknowledged) - (server.rankings() - before),
        "web_memory_mb": [round(memory_before), round(server.resident_mb())],
        "connections": server.connections(),
    }
    print(f"# {json.dumps(row)}", flush=True)
    return row


def latencies(timings: Timings) -> dict[str, list[float]]:
    everything = [second for values in timings.seconds.values() for second in values]
    return {**timings.seconds, "next + submit": timings.pairs, "every request": everything}


def percentiles(seconds: list[float]) -> dict[str, float]:
    """p50, p95 and p99 in milliseconds."""
    if len(seconds) < 2:
        return {"p50": round(1000 * seconds[0], 1)}
    cuts = statistics.quantiles(seconds, n=100)
    return {name: round(1000 * cuts[place], 1) for name, place in (("p50", 49), ("p95", 94), ("p99", 98))}


def machine() -> str:
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    return (
        f"{model}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end, Python {platform.python_version()}"
    )


def table(report: dict[str, Any], arguments: argparse.Namespace) -> str:
    lines = [
        "# Labelers over HTTP",
        "",
        f"{datetime.datetime.now(datetime.UTC).date()}, {report['machine']}.",
        f"{arguments.workers} web process(es), Postgres with fsync on, K = {K}, load generator on the same machine.",
        "",
        f"    {shlex.join(['python', '-m', 'benchmarks.web', *sys.argv[1:]])}",
        "",
        "Milliseconds. A cycle is a lease, three draft saves, one renewal and a submit.",
        "",
        "| labelers | cycles/s | next + submit p50 / p95 / p99 | every request p50 / p95 / p99 | errors | duplicates "
        "| lost | web memory, MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in report["rows"]:
        pair, every = row["milliseconds"]["next + submit"], row["milliseconds"]["every request"]
        lines.append(
            f"| {row['what']} | {row['cycles_per_s']} | {' / '.join(str(value) for value in pair.values())} "
            f"| {' / '.join(str(value) for value in every.values())} | {row['errors']} | {row['duplicates']} "
            f"| {row['acknowledged_but_missing']} | {' → '.join(map(str, row['web_memory_mb']))} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
