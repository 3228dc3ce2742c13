"""The simulated loop: run arms, seed by seed, and write what they found.

    python -m benchmarks.simulation run                 every arm, seeds 0 to 4
    python -m benchmarks.simulation run --arms ppo,grpo --seeds 0,2
    python -m benchmarks.simulation flaw                a reward model that loves length, with stop rules and without
    python -m benchmarks.simulation report              docs/science.md's tables and plots, from what is there

A run that was killed goes on where it was; several may run at once, with seeds or arms of their own. One thread each.
"""

import argparse
from pathlib import Path

import torch
from transformers.utils import logging

from benchmarks.simulation.flaw import run_flaw
from benchmarks.simulation.loop import ARMS, Sizes, run_arm
from benchmarks.simulation.report import write_report

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
# What the published lines come from: seeds that nothing in them was chosen on.
PUBLISHED = """\
python -m benchmarks.simulation run --seeds 10,11,12,13,14
    python -m benchmarks.simulation flaw --seeds 15,16,17,18,19"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "flaw", "report"])
    parser.add_argument("--arms", default=",".join(arm.name for arm in ARMS))
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--work", type=Path, default=ROOT / "var" / "simulation", help="folder of the stages")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of simulation.jsonl and flaw.jsonl")
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    if arguments.command == "run":
        arms = {arm.name: arm for arm in ARMS}
        for name in arguments.arms.split(","):
            for seed in seeds:
                run_arm(arms[name], seed, Sizes(), arguments.work, arguments.results / "simulation.jsonl")
    elif arguments.command == "flaw":
        for rules in (True, False):
            for seed in seeds:
                run_flaw(seed, rules, arguments.work, arguments.results / "flaw.jsonl")
    else:
        write_report(arguments.results, ROOT / "docs", PUBLISHED)


if __name__ == "__main__":
    main()
