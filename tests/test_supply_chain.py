"""The list of what Podium is made of, and the audit where there is no network."""

import json
import subprocess
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import supply_chain

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def test_the_list_names_every_dependency_with_its_version_and_what_those_need() -> None:
    listed = json.loads(supply_chain.sbom())
    assert (listed["bomFormat"], listed["metadata"]["component"]["name"]) == ("CycloneDX", "podium")
    versions = {each["name"]: each["version"] for each in listed["components"]}
    declared = [Requirement(line) for line in tomllib.loads(PROJECT.read_text())["project"]["dependencies"]]
    assert {canonicalize_name(each.name) for each in declared} <= set(versions)
    assert "starlette" in versions  # FastAPI's
    assert {"psycopg-binary", "greenlet"} <= set(versions)  # of extras: psycopg[binary], sqlalchemy[asyncio]
    needed = {each["ref"].partition("==")[0]: each.get("dependsOn", []) for each in listed["dependencies"]}
    assert f"psycopg-binary=={versions['psycopg-binary']}" in needed["psycopg"]
    assert "pytest" not in versions
    assert all(each["purl"] == f"pkg:pypi/{each['name']}@{quote(each['version'])}" for each in listed["components"])


GOOD = {"name": "fastapi", "version": "1", "vulns": []}
BAD = {"name": "jinja2", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}
UNKNOWN = {"name": "torch", "skip_reason": "Dependency not found on PyPI"}


@pytest.mark.parametrize(
    ("found", "else_code", "required", "said"),
    [
        ([GOOD], 0, 0, "1 packages, no known hole"),
        ([GOOD, BAD, UNKNOWN], 1, 1, "jinja2 1 has CVE-1, mended in 2"),
        ([GOOD, UNKNOWN], 0, 1, "NOT DONE"),
        (None, 0, 1, "NOT DONE"),
    ],
    ids=["healthy", "a hole", "looked up in part", "no network"],
)
def test_an_audit_passes_only_when_every_pin_was_looked_up_or_nobody_relies_on_it(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    found: list[Any] | None,
    else_code: int,
    required: int,
    said: str,
) -> None:
    answer = "" if found is None else json.dumps({"dependencies": found})
    ran = subprocess.CompletedProcess([], 0, stdout=answer, stderr="no route to host")
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **options: ran)
    for asked, code in (("", else_code), ("required", required)):
        monkeypatch.setenv("AUDIT", asked)
        assert supply_chain.audit() == code
        told = capsys.readouterr()
        assert said in told.out + told.err
