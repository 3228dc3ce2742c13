"""Judgements of all pairs of a prompt's completions, as qa_feedback has them. Pure."""

from app.datasets.errors import BadRecord
from app.datasets.files import Record
from app.datasets.orderings import fitted_ranks
from app.datasets.readers.fields import list_of_objects, optional_text, prompt_of
from app.datasets.readers.given import Given, GivenCompletion, GivenRanking, GivenSlate


def read_pairwise(record: Record) -> Given:
    """Judgements of the pairs of one prompt's completions (qa_feedback, arXiv:2306.01693); null prefers neither.

    They become one ranking where an ordering agrees with all of them, else a slate of two for each judged pair.
    """
    texts = record.get("completions")
    if not isinstance(texts, list) or len(texts) < 2 or not all(isinstance(text, str) for text in texts):
        raise BadRecord("completions are not a list of at least two texts")
    messages, key = prompt_of(record), optional_text(record, "id")
    judgements = dict(judgement(pair, len(texts)) for pair in list_of_objects(record, "pairwise", at_least=1))
    if len(judgements) < len(record["pairwise"]):
        raise BadRecord("a pair is judged twice")
    completions = [GivenCompletion(text) for text in texts]
    ranks = fitted_ranks(len(texts), judgements)
    if ranks is not None:
        return Given([GivenSlate(messages, completions, [GivenRanking(ranks)], key)])
    pairs = [
        GivenSlate(
            messages,
            [completions[i], completions[j]],
            [GivenRanking({1: [1, 2], -1: [2, 1], 0: [1, 1]}[outcome])],
            None if key is None else f"{key}:{i + 1}-{j + 1}",
        )
        for (i, j), outcome in sorted(judgements.items())
    ]
    return Given(pairs, ["fits_no_ordering"])


def judgement(pair: Record, k: int) -> tuple[tuple[int, int], int]:
    a, b, preferred = pair.get("a"), pair.get("b"), pair.get("preferred")
    if not (isinstance(a, int) and isinstance(b, int) and a != b and {a, b} <= set(range(1, k + 1))):
        raise BadRecord(f"a judgement's a and b are not two different completions from 1 to {k}")
    if preferred not in (a, b, None):
        raise BadRecord(f"of completions {a} and {b}, {preferred!r} is preferred")
    first, second = sorted((a, b))
    return (first - 1, second - 1), 0 if preferred is None else 1 if preferred == first else -1
