"""Programs that begin warm: forked from a process that has imported before what they import.

torch and transformers take five seconds of a core to import, where a tiny stage takes less than one to run. A program
that begins here is a process of its own like any other, killed, asked to stop and waited for as one. What it does not
show is that its module imports what it needs: test_chain.py and the tests of whole installations start theirs cold.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import IO, Any

ROOT = Path(__file__).parents[1]
RECIPES = ("evaluate", "grpo", "ppo", "rejection", "reward", "score", "sft")
IMPORTED_BEFORE = (
    *(f"trainer.recipes.{recipe}" for recipe in RECIPES),
    "trainer.launch",
    "accelerate",
    "peft",
    "pyarrow.parquet",
    "transformers.models.llama.modeling_llama",
    "transformers.models.gpt2.modeling_gpt2",
)
LARGEST_REQUEST = 200_000  # bytes, the environment among them


class Program:
    """`python -m module ...`, begun warm; what our code and our tests use of subprocess.Popen, and nothing else."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        stdin: int | None = None,
        stdout: IO[Any],
        stderr: "int | IO[Any]" = STDOUT,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        start_new_session: bool = False,
    ) -> None:
        python, option, *arguments = command
        assert (python, option) == (sys.executable, "-m")
        self.returncode: int | None = None
        self.stdin: IO[bytes] | None = None
        reads, writes = os.pipe()
        if stdin == PIPE:
            self.stdin = open(writes, "wb")  # noqa: SIM115 - the caller closes it
        else:
            os.close(writes)
        told, tells = os.pipe()
        self._told = open(told, "rb", buffering=0)  # noqa: SIM115 - closed at the program's end
        self._asking = threading.Lock()
        request = {
            "arguments": arguments,
            "cwd": str(cwd or Path.cwd()),
            "environment": dict(os.environ if env is None else env),
            "start_new_session": start_new_session,
        }
        errors = stdout if isinstance(stderr, int) else stderr
        streams = [reads, stdout.fileno(), errors.fileno(), tells]
        socket.send_fds(forker(), [json.dumps(request).encode()], streams)
        os.close(reads)
        os.close(tells)
        self.pid = self._next_number()

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        with self._asking:
            if self.returncode is None and select.select([self._told], [], [], 0)[0]:
                self.returncode = self._next_number()
                self._told.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.poll() is None and not select.select([self._told], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("a warm program", timeout or 0)
        status = self.poll()
        assert status is not None
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it ended just now
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _next_number(self) -> int:
        digits = b""
        while not digits.endswith(b"\n"):
            byte = self._told.read(1)
            assert byte, "the process that warm programs are forked from has ended"
            digits += byte
        return int(digits)


def run(command: Sequence[str], folder: Path, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run a program to its end; what it prints goes into a file of the folder first."""
    with (folder / f"{os.urandom(4).hex()}.printed").open("w+") as printed:
        status = Program(command, stdout=printed, **options).wait()
        printed.seek(0)
        return subprocess.CompletedProcess(command, status, stdout="", stderr=printed.read())


@lru_cache(maxsize=1)
def forker() -> socket.socket:
    """Where programs are asked for: one process for all tests of this one, and it ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, "-m", "tests.warm", str(theirs.fileno())]
        process = subprocess.Popen(
            command, cwd=ROOT, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def serve(asked: socket.socket) -> dict[str, Any]:
    """Fork for each request. Returns in the fork, with what it is to run; ends when nobody can ask any more."""
    awake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(waker)
    waiting: dict[int, int] = {}  # process -> where to tell how it ended
    while True:
        ready, _, _ = select.select([asked, awake], [], [])
        if awake in ready:
            os.read(awake, 1000)
            tell_ends(waiting)
        if asked not in ready:
            continue
        message, streams, _, _ = socket.recv_fds(asked, LARGEST_REQUEST, 4)
        if not message:
            sys.exit()
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for number, stream in enumerate(streams[:3]):
                os.dup2(stream, number)
            for number in (*streams, *waiting.values(), awake, waker):
                os.close(number)
            asked.close()
            return json.loads(message)  # type: ignore[no-any-return]
        *given, told = streams
        for stream in given:
            os.close(stream)
        tell(told, pid)
        waiting[pid] = told


def tell_ends(waiting: dict[int, int]) -> None:
    while waiting:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        told = waiting.pop(pid)
        tell(told, os.waitstatus_to_exitcode(status))
        os.close(told)


def tell(stream: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody waits for it any more
        os.write(stream, f"{number}\n".encode())


def become(request: dict[str, Any]) -> None:
    """Run the module, as `python -m` would."""
    if request["start_new_session"]:
        os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    random.seed()  # or all forks would draw the same
    module, *arguments = request["arguments"]
    sys.argv = [module, *arguments]
    sys.modules.pop(module, None)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def leave(status: int) -> None:
    """At once: taking all that was imported apart would cost a second, in memory that is shared until then."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(ValueError):  # the program has closed it
            stream.flush()
    os._exit(status)


def main() -> None:
    asked = socket.socket(fileno=int(sys.argv[1]))
    ends_with = [0]
    atexit.register(lambda: leave(ends_with[0]))  # the first to be registered is the last to be called
    for module in IMPORTED_BEFORE:
        importlib.import_module(module)
    gc.freeze()  # or each fork's first collection would copy everything
    request = serve(asked)
    try:
        become(request)
    except SystemExit as end:
        ends_with[0] = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise
    except BaseException:
        ends_with[0] = 1
        raise


if __name__ == "__main__":
    main()
