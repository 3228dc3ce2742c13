"""`podium doctor`, as people and scripts read it."""

import dataclasses
import json
from collections.abc import Iterable, Iterator
from typing import Annotated

import typer

from app import embedded_postgres, terminal
from app.settings import get_settings
from app.terminal import REFUSED, say
from app.upkeep.doctor import examine
from app.upkeep.findings import Finding, Severity, worst

MARKS = {Severity.GOOD: "ok", Severity.NOTE: "note", Severity.WARNING: "warning", Severity.FAULT: "FAULT"}


def register(cli: typer.Typer) -> None:
    """Add the command."""
    cli.command("doctor")(doctor)


def doctor(
    all_files: Annotated[bool, typer.Option("--all", help="Compare every file of every result with its hash.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Look at everything the installation stands on; exit code 1 if something is at fault."""
    settings = get_settings()
    folder = terminal.postgres_folder(settings)
    has_own = settings.database_url is None and terminal.has_database(settings)
    starts_it = has_own and not embedded_postgres.is_running(folder)
    try:
        findings = list(_said(examine(settings, all_files=all_files), quiet=as_json))
    finally:
        if starts_it:
            embedded_postgres.stop(folder)
    if as_json:
        say(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1))
    if worst(findings) is Severity.FAULT:
        raise SystemExit(REFUSED)


def _said(findings: Iterable[Finding], *, quiet: bool) -> Iterator[Finding]:
    """Each as soon as it is known."""
    for finding in findings:
        if not quiet:
            say(f"{MARKS[finding.severity]:>8}  {finding.check}: {finding.what}")
            if finding.advice:
                say(f"{'':>8}  → {finding.advice}")
        yield finding
