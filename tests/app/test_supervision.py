"""Children are started again, whatever keeps them from it for a while; what cannot be said stops nobody."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from pydantic import SecretStr
from uvicorn.supervisors import Multiprocess

from app import embedded_postgres, serving, up
from app.settings import Settings
from app.supervision import Child
from tests.faults.processes import is_running, wait_for

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def test_a_child_that_cannot_be_started_now_is_started_later(tmp_path: Path) -> None:
    program = tmp_path / "program"
    child = Child("web", [str(program)], {}, tmp_path / "logs" / "web.log")
    assert (child.look_after(now=10.0) or "").startswith("web could not be started (No such file or directory)")
    program.symlink_to(sys.executable)
    assert child.look_after(now=10.5) is None
    assert child.process is None  # its pause is not over
    assert child.look_after(now=11.0) is None
    assert child.process is not None
    child.wait_or_kill(0.0)


def test_a_full_disk_below_its_own_output_does_not_end_the_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    output = open("/dev/full", "w", buffering=1)  # noqa: SIM115 - closing it fails, too
    monkeypatch.setattr(sys, "stdout", output)
    up._say("web ended")
    with pytest.raises(OSError, match="No space left"):
        output.close()


def test_a_database_that_has_died_unfetched_is_dead(tmp_path: Path) -> None:
    data = tmp_path / "postgres" / "data"
    data.mkdir(parents=True)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as postmaster:
        (data / "postmaster.pid").write_text(f"{postmaster.pid}\n")
        assert up._is_alive(Settings(home=tmp_path))
        postmaster.kill()
        Path(f"/proc/{postmaster.pid}/stat").read_text()  # nobody has waited for it: it is there as a zombie
        while up._is_alive(Settings(home=tmp_path)):
            pass


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(embedded_postgres.PostgresDidNotStart, match="Not a directory"):
        embedded_postgres.start(tmp_path / "file" / "postgres")


SPAWNS = """
import multiprocessing, time
from app.supervision import end_with_spawner

def work(started):
    end_with_spawner()
    started.send(multiprocessing.current_process().pid)
    time.sleep(600)

if __name__ == "__main__":
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    spawn.Process(target=work, args=(there,)).start()
    print(here.recv(), flush=True)
    time.sleep(600)
"""


def test_a_spawned_process_ends_with_its_parent_however_that_ends(tmp_path: Path) -> None:
    program = tmp_path / "spawns.py"
    program.write_text(SPAWNS)
    with subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, cwd=ROOT, env=ENVIRONMENT) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    wait_for(lambda: not is_running(child), "the spawned process to end")


def test_a_web_worker_has_time_to_load_on_a_busy_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[uvicorn.Config] = []
    monkeypatch.setattr(Multiprocess, "__init__", lambda self, config, sockets: started.append(config))
    monkeypatch.setattr(Multiprocess, "run", lambda self: None)
    with socket.socket() as listener:
        serving.serve(Settings(home=tmp_path, web_workers=2), listener)
    [config] = started
    assert config.timeout_worker_healthcheck >= 30  # five seconds: killed before it was up, again and again


class Worker:
    """As uvicorn's parent sees it."""

    def __init__(self) -> None:
        self.is_up, self.asked_for_s = False, 0.0

    def is_ready(self, timeout: float) -> bool:
        return self.is_up

    def is_alive(self, timeout: float) -> bool:
        self.asked_for_s = timeout
        return True


def test_a_worker_that_is_up_is_not_waited_for_as_long_as_one_that_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "signal", lambda *given: None)
    workers = serving.Workers(uvicorn.Config("app.serving:worker", workers=2), [])
    workers.processes = [one, other] = [Worker(), Worker()]  # type: ignore[assignment]
    one.is_up = True
    workers.keep_subprocess_alive()
    assert other.asked_for_s == serving.WORKER_STARTS_S
    other.is_up = True
    workers.keep_subprocess_alive()
    assert other.asked_for_s == serving.WORKER_SILENT_S
    workers.processes[1] = Worker()  # type: ignore[call-overload]
    workers.keep_subprocess_alive()
    assert one.asked_for_s == serving.WORKER_STARTS_S


@pytest.mark.parametrize("has_room", [True, False])
def test_workers_add_up_what_they_count_in_memory_and_never_on_a_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_room: bool, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(serving, "MEMORY", tmp_path)
    monkeypatch.setattr(serving, "METRICS_BYTES", 0 if has_room else 1 << 60)
    monkeypatch.setenv(serving.SHARED, "")
    monkeypatch.delenv(serving.SHARED)
    settings = Settings(home=tmp_path, web_workers=2, metrics_token=SecretStr("x" * 24))
    with serving._shared_metrics(settings):
        folder = os.environ.get(serving.SHARED)
    assert (folder is not None and Path(folder).parent == tmp_path) == has_room
    assert ("has no room" in caplog.text) == (not has_room)


def test_a_web_worker_looks_after_its_parent_before_it_loads_our_code(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []

    class Main(ModuleType):
        def create_app(self) -> FastAPI:
            return FastAPI()

        def __getattribute__(self, name: str) -> Any:
            if name == "create_app":
                happened.append("loads")
            return super().__getattribute__(name)

    monkeypatch.setitem(sys.modules, "app.main", Main("app.main"))
    monkeypatch.setattr(serving, "end_with_spawner", lambda: happened.append("looks after its parent"))
    serving.worker()
    assert happened == ["looks after its parent", "loads"]
