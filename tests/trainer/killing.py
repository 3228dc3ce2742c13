"""Kill a recipe for real, at a place that is the same each time.

Run as a program:  python -m tests.trainer.killing MODULE RECIPE FOLDER FUNCTION CALL
runs the recipe and sends this process SIGKILL when FUNCTION (package.module.name) is called for the CALL-th time.
"""

import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

from tests import warm

ROOT = Path(__file__).parents[2]


def run_until_killed(module: str, recipe: str, folder: Path, function: str, call: int) -> None:
    """Start the recipe on the folder in a process of its own, and see it die at that call."""
    arguments = [sys.executable, "-m", "tests.trainer.killing", module, recipe, str(folder), function, str(call)]
    finished = warm.run(arguments, folder.parent, cwd=ROOT)
    assert finished.returncode == -signal.SIGKILL, finished.stderr


def main() -> None:
    module, recipe, folder, function, call = sys.argv[1:]
    home, name = function.rsplit(".", 1)
    owner = importlib.import_module(home)
    original, calls = getattr(owner, name), iter(range(1, 1_000_000))

    def dying(*arguments: Any, **keywords: Any) -> Any:
        if next(calls) == int(call):
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **keywords)

    setattr(owner, name, dying)
    from trainer.recipes.program import run_recipe

    sys.argv = [module, folder]
    run_recipe(getattr(importlib.import_module(module), recipe))


if __name__ == "__main__":
    main()
