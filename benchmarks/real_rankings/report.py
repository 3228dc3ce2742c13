"""The tables of benchmarks/results/real_rankings.md and docs/science.md, from the lines that the runs left."""

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.real_rankings.intervals import Share, share_by_texts, share_by_units
from benchmarks.reward import machine, versions
from benchmarks.simulation.loop import read_lines
from benchmarks.simulation.report import replaced

NEARLY_EQUAL = 1.25  # texts whose lengths differ by less than this factor
TITLES = {
    "convarg": "convarg: whole debates held out",
    "qa_feedback": "qa_feedback: questions held out",
}


@dataclass(frozen=True)
class Pair:
    """One decided pair of a test fold."""

    prompt: int
    better: int  # a text's number, over all prompts
    worse: int
    by_model: float  # 1 where right, 1/2 for a tie
    by_length: float
    ratio: float  # of the longer text's length to the shorter's


def write_report(results: Path, docs: Path, command: str) -> None:
    lines = read_lines(results / "real_rankings.jsonl")
    day = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    measured = ", ".join([f"{day}, {machine(1)}", *(f"{n} {v}" for n, v in versions().items() if n != "trl")])
    text = "\n".join(tables(lines)) + "\n"
    head = f"# Reward models on what people judged\n\n{measured}.\n\n    {command}\n\n"
    (results / "real_rankings.md").write_text(head + text, encoding="utf-8")
    page = docs / "science.md"
    page.write_text(
        replaced(page.read_text(encoding="utf-8"), "real rankings", f"{measured}.\n\n{text}"), encoding="utf-8"
    )


def tables(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    found = {name: pairs_of([line for line in lines if line["set"] == name]) for name in TITLES}
    known = {name: pairs for name, pairs in found.items() if pairs}
    text = [
        "| held out | decided pairs | the longer text wins, % right | reward model, % right | difference, points |",
        "| --- | --- | --- | --- | --- |",
        *(row(TITLES[name], pairs, interval_of(name)) for name, pairs in known.items()),
        "",
        f"Other intervals of that difference, and the pairs whose lengths differ by less than {NEARLY_EQUAL} ×:",
        "",
        "| held out | over prompts | over texts | pairs of like length | longer, % right | reward model, % right |"
        " difference |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(other_row(name, pairs) for name, pairs in known.items()),
    ]
    for name, pairs in known.items():
        if name != "qa_feedback":
            text += ["", *by_group(name, [line for line in lines if line["set"] == name], pairs)]
    return text


def interval_of(name: str) -> Callable[[Sequence[Pair], Sequence[float]], Share]:
    """Sides of debates are ten, and each of their arguments is in some thirty pairs; questions are 250 of six pairs."""
    return by_prompts if name == "qa_feedback" else by_texts


def by_prompts(pairs: Sequence[Pair], values: Sequence[float]) -> Share:
    return share_by_units(values, [pair.prompt for pair in pairs])


def by_texts(pairs: Sequence[Pair], values: Sequence[float]) -> Share:
    return share_by_texts(values, [(pair.better, pair.worse) for pair in pairs])


def row(title: str, pairs: Sequence[Pair], interval: Callable[[Sequence[Pair], Sequence[float]], Share]) -> str:
    return f"| {title} | {len(pairs)} | " + " | ".join(map(str, three(pairs, interval))) + " |"


def three(pairs: Sequence[Pair], interval: Callable[[Sequence[Pair], Sequence[float]], Share]) -> list[Share]:
    """Length, model, and their difference pair by pair."""
    return [
        interval(pairs, [pair.by_length for pair in pairs]),
        interval(pairs, [pair.by_model for pair in pairs]),
        interval(pairs, [pair.by_model - pair.by_length for pair in pairs]),
    ]


def other_row(name: str, pairs: Sequence[Pair]) -> str:
    differences = [pair.by_model - pair.by_length for pair in pairs]
    like = [pair for pair in pairs if pair.ratio < NEARLY_EQUAL]
    cells = [by_prompts(pairs, differences), by_texts(pairs, differences), len(like), *three(like, interval_of(name))]
    return f"| {TITLES[name]} | " + " | ".join(map(str, cells)) + " |"


def by_group(name: str, lines: Sequence[Mapping[str, Any]], pairs: Sequence[Pair]) -> list[str]:
    """Each debate: where the model gains and where it loses."""
    groups = {prompt["number"]: prompt["group"] for line in lines for prompt in line["prompts"]}
    rows = [
        f"| {TITLES[name]}, by debate | pairs | longer | reward model | difference |",
        "| --- | --- | --- | --- | --- |",
    ]
    for group in sorted(set(groups.values())):
        own = [pair for pair in pairs if groups[pair.prompt] == group]
        rows.append(row(group, own, by_texts))
    return rows


def pairs_of(lines: Sequence[Mapping[str, Any]]) -> list[Pair]:
    """lines: of one set, each a fold of its own."""
    found = []
    for line in lines:
        for prompt in line["prompts"]:
            scores, lengths = prompt["scores"], prompt["lengths"]
            for i, j in prompt["decided"]:
                first = 1000 * prompt["number"]
                ratio = max(lengths[i], lengths[j]) / min(lengths[i], lengths[j])
                found.append(
                    Pair(
                        prompt["number"],
                        first + i,
                        first + j,
                        correctness(scores[i] - scores[j]),
                        correctness(lengths[i] - lengths[j]),
                        ratio,
                    )
                )
    return found


def correctness(lead: float) -> float:
    return 1.0 if lead > 0 else 0.5 if lead == 0 else 0.0
