"""One look at an installation finds what is wrong with it, says how bad that is and what to do, and changes nothing."""

import json
import os
import socket
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from app import db
from app.db import clock
from app.rounds.heart import beat
from app.settings import Settings
from app.upkeep import database_checks, machine_checks
from app.upkeep.database_checks import check_database
from app.upkeep.doctor import examine
from app.upkeep.file_checks import check_files
from app.upkeep.findings import Finding, Severity, fault, good, note, worst
from app.upkeep.machine_checks import check_machine
from app.upkeep.settings_checks import check_settings, variables
from app.upkeep.work_checks import check_work
from tests.app.conftest import Person
from tests.app.loop import make_project
from tests.app.rounds.stages import claimed, make_loop, stage_of, start
from tests.app.test_cli import podium
from tests.app.upkeep.installations import fit_reward_model

NO_GPU = """print('{"torch": "2", "cuda": false, "gpus": []}')"""
FAULT, WARNING, NOTE, GOOD = Severity.FAULT, Severity.WARNING, Severity.NOTE, Severity.GOOD


def severities(findings: list[Finding]) -> dict[str, Severity]:
    """The worst of each check."""
    checks = {finding.check for finding in findings}
    return {check: worst(finding for finding in findings if finding.check == check) for check in checks}


@pytest.mark.parametrize(
    ("given", "check", "severity"),
    [
        ({"engine": "openai"}, "engine", FAULT),
        ({"engine": "local", "engine_url": "http://vllm:8000"}, "engine", WARNING),
        ({"public_url": "http://podium.example.org"}, "public_url", WARNING),
        ({"public_url": "podium.example.org"}, "public_url", FAULT),
        ({"host": "0.0.0.0"}, "public_url", WARNING),
        ({"proxies": "172.18.0.1"}, "proxies", WARNING),
        ({"web_workers": 10_000}, "web_workers", NOTE),
        ({"threads": 10_000}, "threads", WARNING),
        ({"pretraining_text": Path("/nowhere.txt")}, "pretraining_text", WARNING),
    ],
)
def test_settings_that_contradict_each_other_are_found(given: dict[str, Any], check: str, severity: Severity) -> None:
    findings = list(check_settings(Settings(**given), {}))
    assert severities(findings) == {check: severity}
    assert all(finding.advice for finding in findings)


@pytest.mark.parametrize(
    "given", [{}, {"public_url": "https://podium.example.org"}, {"public_url": "http://localhost:8000"}]
)
def test_settings_that_agree_are_good(given: dict[str, Any]) -> None:
    assert severities(list(check_settings(Settings(**given), {"PATH": "/bin"}))) == {"settings": GOOD}


def test_a_variable_that_nothing_reads_is_named_with_the_one_that_was_meant() -> None:
    (finding,) = check_settings(Settings(), {"PODIUM_POOLSIZE": "20", "PODIUM_POOL_SIZE": "20", "DATABASE_URL": "x"})
    assert (finding.check, "PODIUM_POOLSIZE" in finding.what) == ("unknown_setting", True)
    assert "did you mean PODIUM_POOL_SIZE?" in finding.advice


def test_the_variable_of_the_web_server_that_is_read_no_more_is_named_with_ours() -> None:
    (finding,) = check_settings(Settings(), {"FORWARDED_ALLOW_IPS": "172.18.0.1"})
    assert "PODIUM_PROXIES" in finding.advice


def test_every_variable_of_the_manual_is_known() -> None:
    manual = Path(__file__).resolve().parents[3] / "docs/operations.md"
    named = {part for part in manual.read_text().replace("`", " ").replace(",", " ").split() if "PODIUM_" in part}
    assert {name for name in named if name.isupper()} <= variables()


def test_a_database_like_the_tests_own_is_at_fault_for_losing_commits_in_a_crash(engine: Engine) -> None:
    found = severities(list(check_database(engine, Settings())))
    with engine.connect() as connection:
        is_durable = connection.exec_driver_sql("SHOW fsync").scalar_one() == "on"
    assert found["durability"] == (GOOD if is_durable else FAULT)
    assert {check: found[check] for check in ("postgres", "schema", "connections", "clock")} == {
        "postgres": GOOD,
        "schema": GOOD,
        "connections": GOOD,
        "clock": GOOD,
    }


def test_more_connections_than_the_server_gives_are_a_fault_that_says_how_many_to_allow(engine: Engine) -> None:
    with engine.connect() as connection:
        most = int(connection.exec_driver_sql("SHOW max_connections").scalar_one())
    found = [each for each in check_database(engine, Settings(pool_size=most)) if each.check == "connections"]
    assert [each.severity for each in found] == [FAULT]
    reserved = 3  # Postgres keeps so many for superusers
    assert f"raise max_connections to {3 * (most + 1) + 2 + reserved}" in found[0].advice


def test_clocks_that_differ_are_found(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_checks, "SKEW_S", -1.0)
    assert severities(list(check_database(engine, Settings())))["clock"] == WARNING
    monkeypatch.setattr(database_checks, "BAD_SKEW_S", -1.0)
    assert severities(list(check_database(engine, Settings())))["clock"] == FAULT


def test_a_database_without_tables_has_one_fault(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE alembic_version RENAME TO elsewhere"))
    try:
        assert severities(list(check_database(engine, Settings())))["schema"] == FAULT
    finally:
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE elsewhere RENAME TO alembic_version"))


def test_what_keeps_work_from_going_on_is_found(session: Session, person: Callable[..., Person]) -> None:
    now = clock(session)
    assert severities(list(check_work(session, now=now))) == {"admin": FAULT, "stuck_claims": GOOD, "leases": GOOD}
    project = make_loop(session)
    start(session, project, "reward")
    stage_of(session, held := claimed(session))
    session.commit()
    person("Sita Site", is_site_admin=True)
    later = now + timedelta(hours=1)
    found = severities(list(check_work(session, now=later)))
    assert found == {
        "admin": GOOD,
        "sampler": WARNING,
        "trainer": WARNING,
        "stuck_claims": WARNING,
        "leases": GOOD,
    }
    for process in ("sampler", "trainer"):
        beat(session, f"{process}@here", process, "waiting", now=later)
    stage_of(session, held).deadline = later
    session.flush()
    assert set(severities(list(check_work(session, now=later))).values()) == {GOOD}


def test_results_are_looked_for_and_with_all_compared(session: Session, settings: Settings) -> None:
    fit_reward_model(session, settings, make_loop(session))

    def look(*, all_files: bool) -> list[Finding]:
        return list(check_files(session.connection(), settings, all_files=all_files))

    assert severities(look(all_files=True)) == {"results": GOOD}
    weights = settings.artifacts / "projects/loop/rounds/0001/reward/result/model.safetensors"
    weights.write_bytes(b"W" * weights.stat().st_size)
    assert severities(look(all_files=False)) == {"results": GOOD}
    assert severities(look(all_files=True)) == {"results": FAULT}
    weights.unlink()
    (gone,) = look(all_files=False)
    assert (gone.severity, "reward model 1 of loop" in gone.what) == (FAULT, True)


def test_a_policy_in_a_folder_of_ones_own_is_noted(session: Session, settings: Settings) -> None:
    make_project(session)
    session.execute(text("UPDATE policy_version SET source = '/models/base'"))
    findings = list(check_files(session.connection(), settings, all_files=False))
    assert [each.what for each in findings if each.severity is NOTE] == [
        "policy version 1 of loop: /models/base lies outside the artifacts"
    ]


def test_a_store_that_is_away_is_a_fault_with_the_stores_own_advice(session: Session, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, PODIUM_ARTIFACTS="nothing://x/y")
    (finding,) = check_files(session.connection(), settings, all_files=False)
    assert (finding.severity, "correct PODIUM_ARTIFACTS" in finding.advice) == (FAULT, True)


def test_a_port_of_somebody_else_and_a_full_disk_and_a_gpu_that_is_not_there_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_checks, "LOOK_AT_TORCH", 'print(\'{"torch": "2", "cuda": false, "gpus": []}\')')
    monkeypatch.setattr(machine_checks, "LEAST_FREE", 1 << 80)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))  # holds the port, and does not listen
        settings = Settings(home=tmp_path, port=other.getsockname()[1], device="cuda")
        found = severities(list(check_machine(settings)))
    assert found == {"port": FAULT, "disk": FAULT, "device": FAULT}


def test_torch_that_cannot_be_loaded_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_checks, "LOOK_AT_TORCH", "import nothing_of_that_name")
    assert severities(list(check_machine(Settings(home=tmp_path, port=0))))["torch"] == WARNING


def test_the_worst_finding_counts() -> None:
    assert worst([]) is GOOD
    assert worst([good("a", ""), fault("b", "", ""), note("c", "")]) is FAULT


def test_the_command_prints_json_and_ends_with_1_where_something_is_at_fault(engine: Engine, tmp_path: Path) -> None:
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    done = podium("doctor", "--json", home=tmp_path, DATABASE_URL=url, PODIUM_PORT="0")
    findings = json.loads(done.stdout)
    assert {"check", "severity", "what", "advice"} == findings[0].keys()
    assert {each["check"]: each["severity"] for each in findings}["admin"] == "fault"
    assert done.returncode == 1
    assert os.listdir(tmp_path) == []


def test_a_database_that_is_away_is_one_fault(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(db.SessionFactory.kw, "bind", engine)  # as it is again afterwards
    monkeypatch.setattr(machine_checks, "LOOK_AT_TORCH", NO_GPU)
    away = "postgresql://podium:secret@127.0.0.1:1/podium"
    findings = list(examine(Settings(home=tmp_path, port=0, DATABASE_URL=away)))
    faults = [finding for finding in findings if finding.severity is FAULT]
    assert [fault.check for fault in faults] == ["database"]
    assert "cannot be reached" in faults[0].what
    assert not [finding for finding in findings if "secret" in finding.what]


def test_an_embedded_database_that_does_not_start_is_one_fault_and_the_rest_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_checks, "LOOK_AT_TORCH", NO_GPU)
    (tmp_path / "postgres/data").mkdir(parents=True)
    (tmp_path / "postgres/data/PG_VERSION").write_text("of no server")
    findings = list(examine(Settings(home=tmp_path, port=0)))
    faults = [finding for finding in findings if finding.severity is FAULT]
    assert [fault.check for fault in faults] == ["database"]
    assert "did not start" in faults[0].what
