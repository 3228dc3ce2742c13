"""The two files of real judgements, and the prose that the trunk learns to read from. Knows no model and no folds.

Where the files come from: `benchmarks.real_rankings` says it. Nothing of a text is changed.
"""

import gzip
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHOSEN = {"a1": [1, 2], "a2": [2, 1], "equal": [1, 1]}


@dataclass(frozen=True)
class Judgement:
    """One labeler's ordering of some of a prompt's completions."""

    labeler: str
    completions: tuple[int, ...]  # their places among the prompt's
    ranks: list[int]  # of these, in this order: 1 is best, equal ranks are ties


@dataclass(frozen=True)
class JudgedPrompt:
    """A prompt, its completions, who judged them how, and the pairs that count as decided."""

    number: int
    group: str  # a debate; a question is a group of its own
    text: str
    completions: list[str]
    judgements: list[Judgement]
    decided: list[tuple[int, int]]  # places: (better, worse)


def read_convarg(folder: Path) -> list[JudgedPrompt]:
    """Ten prompts, each one side of a debate; about five votes of each pair of its arguments.

    A vote is a judgement of its own, so that a pair on which people differ pulls less than one on which they agree.
    Decided is a pair whose published label (`gold`) names one of the two.
    """
    arguments = {row["arg_id"]: row for row in read_lines(folder / "convarg_arguments_dev.jsonl.gz")}
    by_topic: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for pair in read_lines(folder / "convarg_pair_votes_dev.jsonl.gz"):
        by_topic[pair["topic"]].append(pair)
    return [side_of_debate(number, pairs, arguments) for number, (_, pairs) in enumerate(sorted(by_topic.items()))]


def side_of_debate(
    number: int, pairs: Sequence[Mapping[str, Any]], arguments: Mapping[str, Mapping[str, Any]]
) -> JudgedPrompt:
    known = sorted({pair[name] for pair in pairs for name in ("arg1", "arg2")})
    place = {argument: index for index, argument in enumerate(known)}
    judgements, decided = [], []
    for pair in pairs:
        first, second = place[pair["arg1"]], place[pair["arg2"]]
        judgements += [Judgement(vote["annotator"], (first, second), CHOSEN[vote["value"]]) for vote in pair["votes"]]
        if pair["gold"] in ("a1", "a2"):
            decided.append((first, second) if pair["gold"] == "a1" else (second, first))
    about = arguments[known[0]]
    texts = [arguments[argument]["text"] for argument in known]
    return JudgedPrompt(number, about["debate"], f"{about['debate']} {about['stance']}", texts, judgements, decided)


def read_qa_feedback(folder: Path) -> list[JudgedPrompt]:
    """250 questions with four completions, each pair judged; decided are the pairs of which one is preferred.

    Four completions are one ranking where an ordering says what all six judgements say, else one for each pair.
    """
    rows = read_lines(folder / "qa_feedback_4way_dev.jsonl.gz")
    return [question(number, row) for number, row in enumerate(rows)]


def question(number: int, row: Mapping[str, Any]) -> JudgedPrompt:
    outcomes = {(pair["a"] - 1, pair["b"] - 1): pair["preferred"] for pair in row["pairwise"]}
    decided = [
        (preferred - 1, i + j - (preferred - 1)) for (i, j), preferred in outcomes.items() if preferred is not None
    ]
    return JudgedPrompt(
        number, row["id"], row["question"], row["completions"], judgements_of(len(row["completions"]), decided), decided
    )


def judgements_of(k: int, decided: Sequence[tuple[int, int]]) -> list[Judgement]:
    """One ranking of all K where it says exactly what the pairs say, else each decided pair by itself.

    If an ordering with ties fits, counting wins less defeats gives it.
    """
    standing = [sum(i == better for better, _ in decided) - sum(i == worse for _, worse in decided) for i in range(k)]
    levels = sorted(set(standing), reverse=True)
    ranks = [levels.index(value) + 1 for value in standing]
    if {(i, j) for i in range(k) for j in range(k) if ranks[i] < ranks[j]} == set(decided):
        return [Judgement("people", tuple(range(k)), ranks)]
    return [Judgement("people", pair, [1, 2]) for pair in decided]


def read_prose(folder: Path) -> Iterator[tuple[str, str]]:
    """(what is asked, what is said) of texts that have nothing to do with either file; plain prose is asked nothing."""
    for row in read_lines(folder / "squality_summaries_train.jsonl.gz"):
        yield from ((row["question"], summary["text"]) for summary in row["summaries"])
    for row in read_lines(folder / "oasst_rankings_dev.jsonl"):
        if row["messages"][-1]["role"] == "prompter":
            yield from ((row["messages"][-1]["text"], completion["text"]) for completion in row["completions"])
    for row in read_lines(folder / "oasst_model_completions_dev.jsonl.gz"):
        yield from ((row["prompt"], completion["text"]) for completion in row["completions"][:6])
    for row in read_lines(folder / "self_instruct_seed_tasks.jsonl"):
        yield from ((f"{row['instruction']}\n{one['input']}".strip(), one["output"]) for one in row["instances"])
    for row in read_lines(folder / "hh_harmless_pairs_dev.jsonl.gz"):
        turns = re.split(r"\n\n(?:Human|Assistant): ?", row["chosen"])[1:]
        yield from zip(turns[::2], turns[1::2], strict=False)
    lines = (folder / "tinyshakespeare.txt").read_text(encoding="utf-8").split("\n\n")
    yield from (("", "\n\n".join(lines[start : start + 8])) for start in range(0, len(lines), 8))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines, packed or not."""
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    return [json.loads(line) for line in text.split("\n") if line]  # not splitlines: a text may hold U+2028
