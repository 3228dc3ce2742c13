"""Several annotators' votes on one pair, each kept as a ranking of its own. Pure.

The shape is that of UKPConvArg1 (Habernal & Gurevych 2016, ACL P16-1150) with the two texts put in.
"""

from app.datasets.errors import BadRecord
from app.datasets.files import Record
from app.datasets.readers.fields import list_of_objects, optional_text, prompt_of, seconds, text_of
from app.datasets.readers.given import Given, GivenCompletion, GivenRanking, GivenSlate

RANKS = {"a1": [1, 2], "a2": [2, 1], "equal": [1, 1]}


def read_votes(record: Record) -> Given:
    """{prompt, completions: [two of {id, text}], votes: [{annotator, value: "a1", "a2" or "equal"}]}.

    Votes on one text twice are kept: they tell how people judge.
    """
    if "completions" not in record:
        raise BadRecord("the two texts are not here, only their ids: put them in as completions (docs/imports.md)")
    items = list_of_objects(record, "completions", at_least=2, at_most=2)
    completions = [
        GivenCompletion(text_of(item, "text", f"completion {place}"), optional_text(item, "id"))
        for place, item in enumerate(items, start=1)
    ]
    votes = list_of_objects(record, "votes", at_least=1, at_most=1000)
    rankings = [vote_ranking(place, vote) for place, vote in enumerate(votes, start=1)]
    names = [ranking.labeler for ranking in rankings]
    if len(set(names)) < len(names):
        again = next(place for place, name in enumerate(names) if name in names[:place])
        raise BadRecord(f"votes {names.index(names[again]) + 1} and {again + 1} are by one annotator")
    key = optional_text(record, "pair_id") or optional_text(record, "id")
    remarks = ["competence_not_kept"] if any(vote.get("competence") is not None for vote in votes) else []
    return Given([GivenSlate(prompt_of(record), completions, rankings, key)], remarks)


def vote_ranking(place: int, vote: Record) -> GivenRanking:
    value = vote.get("value")
    if not isinstance(value, str) or value not in RANKS:
        raise BadRecord(f"vote {place}: value is {value!r}, which is none of {', '.join(RANKS)}")
    annotator = optional_text(vote, "annotator")
    if annotator is None:
        raise BadRecord(f"vote {place}: annotator is missing")
    return GivenRanking(
        RANKS[value], labeler=annotator, note=optional_text(vote, "reason"), active_s=seconds(vote, "seconds")
    )
