"""The reference pages say what the code says: `make reference` writes them, and these tests compare."""

import io
import json
import os

from sqlalchemy.orm import Session

from app.datasets.export_choices import OPTIONS
from app.datasets.imports import import_file
from app.datasets.readers import RANKING_FORMATS
from app.labeling.models import SlateKind
from app.projects.models import Project
from benchmarks.simulation.report import replaced
from tests.app.conftest import Person
from tests.app.datasets.conftest import NOW, AddRanking, add_ranking, garden  # noqa: F401 - fixtures are found by name
from tests.app.datasets.test_exports import export, freeze
from tests.app.labeling.conftest import MakeSlate, make_slate  # noqa: F401
from tests.docs.checks import variables
from tests.docs.pages import ROOT
from tests.docs.reference import command_line, examples, formats, http_api, metrics, settings

FOLDER = ROOT / "docs" / "reference"


def compare(name: str, **texts: str) -> None:
    """Between two marks of the page stands this text; with WRITE_REFERENCE set it comes to stand there."""
    page = FOLDER / f"{name}.md"
    expected = page.read_text(encoding="utf-8")
    for mark, text in texts.items():
        expected = replaced(expected, mark, f"\n{text}\n\n")
    if os.environ.get("WRITE_REFERENCE"):
        page.write_text(expected, encoding="utf-8")
    assert page.read_text(encoding="utf-8") == expected, f"docs/reference/{name}.md is not up to date: `make reference`"


def test_settings() -> None:
    compare("settings", installation=settings.of_installation(), recipes=settings.of_recipes())
    page = (FOLDER / "settings.md").read_text(encoding="utf-8")
    assert not {name for name in variables() if f"| `{name}` |" not in page}


def test_command_line() -> None:
    compare("command-line", commands=command_line.all_commands())


def test_metrics() -> None:
    compare("metrics", charts=metrics.in_charts())


def test_http_api(session: Session, labeler: Person, researcher: Person, make_slate: MakeSlate) -> None:  # noqa: F811
    dialogue = examples.Dialogue()
    dialogue.say("Who a key belongs to:")
    dialogue.call(researcher, "GET", "/me")
    examples.rank_a_slate(dialogue, labeler, make_slate)
    examples.look_and_freeze(dialogue, researcher)
    examples.be_refused(dialogue, researcher)
    compare("http-api", examples=dialogue.text(), routes=http_api.all_routes())


def test_formats(session: Session, garden: Project, add_ranking: AddRanking) -> None:  # noqa: F811
    for what, record in formats.records().items():
        file = io.BytesIO(json.dumps(record).encode())
        imported = import_file(session, garden, what, file, f"{what}.jsonl", now=NOW)
        assert imported.report["counts"][what] == 1
    add_ranking((1, 2), texts=("Ferns.", "A car."), qualities=(6, 2), kind=SlateKind.PAIR, labeler="Ada")
    snapshot = freeze(session, garden)
    plain = examples.Dialogue().plain
    written = {name: plain(export(snapshot, format=name).decode().split("\n", 1)[0]) for name in OPTIONS}
    assert set(formats.records()) == {"prompts", "demonstrations"}
    assert formats.told_formats() == set(RANKING_FORMATS)
    compare("formats", exported=formats.all_exported(written))
