"""The simulated loop: run arms, seed by seed, and write what they found.

    python -m benchmarks.simulation run --arms ppo --seeds 0,1,2,3,4
    python -m benchmarks.simulation report

A run that was killed goes on where it was; several may run at once, one process a seed or an arm.
"""

import argparse
from pathlib import Path

import torch
from transformers.utils import logging

from benchmarks.simulation.loop import ARMS, Sizes, run_arm

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "simulation.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("--arms", default=",".join(arm.name for arm in ARMS))
    run.add_argument("--seeds", default="0,1,2,3,4")
    run.add_argument("--work", type=Path, default=ROOT / "var" / "simulation", help="folder of the stages")
    run.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    arms = {arm.name: arm for arm in ARMS}
    for name in arguments.arms.split(","):
        for seed in arguments.seeds.split(","):
            run_arm(arms[name], int(seed), Sizes(), arguments.work, arguments.results)


if __name__ == "__main__":
    main()
