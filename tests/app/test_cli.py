"""The command line says what is wrong in one sentence, on stderr, with an exit code that a script can read."""

import json
import os
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from sqlalchemy import Engine


def podium(*arguments: str, home: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**kept, "PODIUM_HOME": str(home), **environment},
    )


def one_sentence(done: "subprocess.CompletedProcess[str]") -> str:
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_help_names_every_command(tmp_path: Path) -> None:
    done = podium("--help", home=tmp_path)
    named = {line.split()[0] for line in done.stdout.partition("Commands:")[2].splitlines() if line.strip()}
    assert named >= {"up", "serve", "sampler", "trainer", "migrate", "project", "user", "key", "import", "export"}
    assert named >= {"round", "policy", "reward-model", "snapshot", "simulate", "demo"}


def test_whoever_reports_something_can_say_which_version_it_is(tmp_path: Path) -> None:
    done = podium("--version", home=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"podium {version('podium')}\n")
    assert not list(tmp_path.iterdir())


def test_a_port_in_use_is_named_with_the_next_move(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = podium("up", "--port", str(port), home=tmp_path)
    assert done.returncode == 2
    assert one_sentence(done) == (
        f"podium: port {port} is in use by another program: stop it, or choose another port with --port"
    )
    assert not (tmp_path / "postgres").exists()  # nothing was begun


def test_an_unreachable_database_is_one_sentence_that_keeps_its_password(tmp_path: Path) -> None:
    url = "postgresql://podium:secret@127.0.0.1:1/podium"
    for arguments in (("up", "--port", "0"), ("trainer",)):
        done = podium(*arguments, home=tmp_path, DATABASE_URL=url)
        assert done.returncode == 2, done.stderr
        said = one_sentence(done)
        assert "127.0.0.1:1/podium cannot be reached" in said
        assert said.endswith("start it, or correct DATABASE_URL")
        assert "secret" not in done.stderr


def test_a_url_of_another_database_is_refused(tmp_path: Path) -> None:
    done = podium("migrate", home=tmp_path, DATABASE_URL="mysql://root@localhost/podium")
    assert (done.returncode, "must begin with postgresql://" in one_sentence(done)) == (2, True)


def test_a_process_that_needs_a_database_says_so(tmp_path: Path) -> None:
    for command in ("serve", "sampler", "trainer"):
        done = podium(command, home=tmp_path)
        assert (done.returncode, "DATABASE_URL is not set" in one_sentence(done)) == (2, True)


def test_a_setting_that_cannot_be_is_named_with_the_rule_and_not_with_its_value(tmp_path: Path) -> None:
    done = podium("serve", home=tmp_path, PODIUM_METRICS_TOKEN="tooshort")
    assert done.returncode == 2
    assert one_sentence(done) == (
        "podium: PODIUM_METRICS_TOKEN: needs 16 letters or more: `openssl rand -hex 24` makes some"
    )


def test_a_backup_into_a_folder_that_is_not_there_makes_no_file_of_its_name(tmp_path: Path) -> None:
    done = podium("backup", "--to", str(tmp_path / "backups"), home=tmp_path)
    assert done.returncode == 2
    assert one_sentence(done).endswith("/backups is no folder: make it first, or name a file that ends in .tar")
    assert not list(tmp_path.iterdir())


def test_an_unknown_project_is_refused(engine: Engine, tmp_path: Path) -> None:
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    done = podium("user", "invite", "--project", "nowhere", home=tmp_path, DATABASE_URL=url)
    assert (done.returncode, "nowhere" in one_sentence(done)) == (1, True)


def test_migrating_twice_is_harmless(engine: Engine, tmp_path: Path) -> None:
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    for _ in range(2):
        assert podium("migrate", home=tmp_path, DATABASE_URL=url).returncode == 0


def test_inspecting_a_policy_prints_json_or_one_sentence(tmp_path: Path) -> None:
    def inspect(source: str) -> "subprocess.CompletedProcess[str]":
        program = [sys.executable, "-m", "trainer.inspect_policy", source]
        return subprocess.run(program, capture_output=True, text=True, check=False, timeout=120)

    assert json.loads(inspect("starter").stdout)["context_tokens"] > 0
    refused = inspect(str(tmp_path / "nothing"))
    assert (refused.returncode, refused.stderr.count("\n")) == (3, 1)
