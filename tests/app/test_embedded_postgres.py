"""The embedded server: starts, is joined, survives a restart, and says why it cannot start."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from app import embedded_postgres
from tests.faults.processes import wait_for

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["plain", "with a space and ünïcode", "long" * 40])
def folder(request: pytest.FixtureRequest) -> Iterator[Path]:
    root = Path(tempfile.mkdtemp())
    folder = root / request.param
    yield folder
    embedded_postgres.stop(folder)
    shutil.rmtree(root, ignore_errors=True)


def test_it_starts_in_any_folder_and_keeps_its_data_over_a_restart(folder: Path) -> None:
    with psycopg.connect(embedded_postgres.start(folder, fsync=False)) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    embedded_postgres.stop(folder)
    with psycopg.connect(embedded_postgres.start(folder, fsync=False)) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchall() == [(42,)]


def test_a_second_start_joins_the_server_that_runs(tmp_path: Path) -> None:
    try:
        assert embedded_postgres.start(tmp_path, fsync=False) == embedded_postgres.start(tmp_path, fsync=False)
        assert embedded_postgres.is_running(tmp_path)
    finally:
        embedded_postgres.stop(tmp_path)


def test_a_data_folder_that_is_no_database_is_named_with_the_servers_own_words(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "PG_VERSION").write_text("18\n")
    with pytest.raises(embedded_postgres.PostgresDidNotStart, match="did not start"):
        embedded_postgres.start(tmp_path)


def test_a_first_start_that_was_killed_is_begun_anew(tmp_path: Path) -> None:
    folder = tmp_path / "postgres"
    begin = "import sys, pathlib; from app import embedded_postgres; embedded_postgres.start(pathlib.Path(sys.argv[1]))"
    with subprocess.Popen([sys.executable, "-c", begin, str(folder)], start_new_session=True, cwd=ROOT) as first:
        wait_for(lambda: any(folder.glob("*/PG_VERSION")), "the database's first files")
        os.killpg(first.pid, signal.SIGKILL)  # the program that makes it, too
    try:
        with psycopg.connect(embedded_postgres.start(folder, fsync=False)) as connection:
            assert connection.execute("SELECT 42").fetchall() == [(42,)]
    finally:
        embedded_postgres.stop(folder)
