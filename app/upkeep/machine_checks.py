"""Whether this machine can do its part: its port, its device, and room for files."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator

from app import serving
from app.settings import Settings
from app.terminal import CannotStart
from app.upkeep.findings import Finding, fault, good, note, warning

TORCH_TIMEOUT_S = 120
LEAST_FREE, LITTLE_FREE = 1 << 30, 10 << 30  # bytes
# In a process of its own: whoever looks after the installation need not load torch, nor hold a GPU.
LOOK_AT_TORCH = """
import json, torch
has = torch.cuda.is_available()
gpus = range(torch.cuda.device_count() if has else 0)
gpus = [[torch.cuda.get_device_name(gpu), *torch.cuda.mem_get_info(gpu)] for gpu in gpus]
print(json.dumps({"torch": torch.__version__, "cuda": has, "gpus": gpus}))
"""


def check_machine(settings: Settings) -> Iterator[Finding]:
    """All of it."""
    yield from _port(settings)
    yield from _room(settings)
    yield from _torch(settings)


def _port(settings: Settings) -> Iterator[Finding]:
    where = f"{settings.host}:{settings.port}"
    if settings.port != 0 and _answers(settings):
        yield good("port", f"something answers on {where}, as a running Podium does")
        return
    try:
        serving.listen(settings).close()
    except CannotStart as error:
        yield fault("port", str(error).partition(":")[0], str(error).partition(": ")[2])
    else:
        yield note("port", f"nothing answers on {where}", "start Podium: `podium up` or `podium serve`")


def _answers(settings: Settings) -> bool:
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104 - compared, not bound
    try:
        socket.create_connection((host, settings.port), timeout=2).close()
    except OSError:
        return False
    return True


def _room(settings: Settings) -> Iterator[Finding]:
    """On the disk that stages are worked on, store or not."""
    folder = settings.artifacts
    while not folder.exists():
        folder = folder.parent
    disk = shutil.disk_usage(folder)
    what = f"{disk.free / 1e9:.1f} GB of {disk.total / 1e9:.0f} GB are free in {folder}"
    if disk.free < LEAST_FREE:
        advice = "free some: `podium artifacts prune --dry-run` says what may go"
        yield fault("disk", f"{what}: stages will fail when it is full", advice)
    elif disk.free < LITTLE_FREE:
        yield warning("disk", what, "`podium artifacts prune --dry-run` says what may go")
    else:
        yield good("disk", what)
    if not os.access(folder, os.W_OK):
        yield fault("artifacts", f"{folder} cannot be written by this user", "correct its owner, or PODIUM_HOME")


def _torch(settings: Settings) -> Iterator[Finding]:
    try:
        done = subprocess.run(
            [sys.executable, "-c", LOOK_AT_TORCH], capture_output=True, text=True, timeout=TORCH_TIMEOUT_S, check=False
        )
        found = json.loads(done.stdout.strip().splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        advice = "needed where samplers and trainers run: install Podium there anew; a web process needs none"
        yield warning("torch", "torch cannot be loaded on this machine", advice)
        return
    if settings.device == "cuda" and not found["cuda"]:
        advice = "install the CUDA build (`make run GPU=1`) and NVIDIA's driver, or set PODIUM_DEVICE=auto"
        yield fault("device", f"PODIUM_DEVICE=cuda, and torch {found['torch']} finds no GPU", advice)
    for name, free, total in found["gpus"]:
        yield good("device", f"torch {found['torch']} finds {name}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free")
    if not found["gpus"]:
        yield good("device", f"torch {found['torch']} computes on the CPU here")
