"""Formats: what a record of each becomes, and what it is refused for."""

from typing import Any

import pytest

from app.datasets.errors import BadRecord
from app.datasets.readers import RANKING_FORMATS, ranking_format_of
from app.datasets.readers.demonstrations import read_demonstration
from app.datasets.readers.given import Given
from app.labeling.models import Strength

USER = {"role": "user", "content": "Name a tree."}
OAK, CAR = {"role": "assistant", "content": "Oak"}, {"role": "assistant", "content": "Car"}


def read(record: dict[str, Any]) -> Given:
    return RANKING_FORMATS[ranking_format_of(record)](record)


def texts(given: Given) -> list[tuple[str, list[str], list[int]]]:
    """(last turn of the prompt, completions, ranks) of each ranking."""
    return [
        (slate.messages[-1]["content"], [completion.text for completion in slate.completions], ranking.ranks)
        for slate in given.slates
        for ranking in slate.rankings
    ]


def oasst(*ranks: Any) -> dict[str, Any]:
    completions = [{"id": f"c{place}", "text": f"Text {place}", "rank": rank} for place, rank in enumerate(ranks)]
    return {"id": "s1", "messages": [{"role": "prompter", "text": "Name a tree."}], "completions": completions}


def squality(*ranks: dict[str, float]) -> dict[str, Any]:
    return {
        "id": "q1",
        "prompt": "Name a tree.",
        "completions": [{"system": "a", "text": "Oak"}, {"system": "b", "text": "Car"}, {"system": "c", "text": "Elm"}],
        "reviews": [
            {"annotator": f"r{place}", "scores": {system: {"overall_rank": rank} for system, rank in scores.items()}}
            for place, scores in enumerate(ranks, start=1)
        ],
    }


def pairwise(**preferred: int | None) -> dict[str, Any]:
    """pairwise(p12=1, p13=None): of completions 1 and 2 the first, of 1 and 3 neither."""
    judged = [{"a": int(pair[1]), "b": int(pair[2]), "preferred": value} for pair, value in preferred.items()]
    return {"id": "p1", "question": "Name a tree.", "completions": ["Oak", "Elm", "Car"], "pairwise": judged}


def test_a_ranking_counted_from_0_becomes_one_from_1() -> None:
    given = read(oasst(2, 0, 1))
    assert texts(given) == [("Name a tree.", ["Text 0", "Text 1", "Text 2"], [3, 1, 2])]
    assert given.slates[0].key == "s1"


def test_each_review_is_a_ranking_of_one_slate_with_its_ties() -> None:
    given = read(squality({"a": 1, "b": 3, "c": 1}, {"c": 1, "a": 2, "b": 3}))
    assert [(ranking.labeler, ranking.ranks) for ranking in given.slates[0].rankings] == [
        ("r1", [1, 2, 1]),
        ("r2", [2, 3, 1]),
    ]
    assert given.slates[0].completions[1].facts == {"system": "b"}


def test_judgements_that_fit_an_ordering_become_one_ranking_with_ties() -> None:
    assert texts(read(pairwise(p12=None, p13=1, p23=2))) == [("Name a tree.", ["Oak", "Elm", "Car"], [1, 1, 2])]


def test_judgements_that_fit_none_become_a_slate_of_two_each_and_are_reported() -> None:
    given = read(pairwise(p12=None, p23=None, p13=3))
    assert texts(given) == [
        ("Name a tree.", ["Oak", "Elm"], [1, 1]),
        ("Name a tree.", ["Oak", "Car"], [2, 1]),
        ("Name a tree.", ["Elm", "Car"], [1, 1]),
    ]
    assert given.remarks == ["fits_no_ordering"]


def test_the_shared_turns_of_two_transcripts_are_the_prompt() -> None:
    start = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Name a tree.\n\nAssistant: "
    given = read({"chosen": start + "Oak", "rejected": start + "Car"})
    assert texts(given) == [("Name a tree.", ["Oak", "Car"], [1, 2])]
    assert [turn["role"] for turn in given.slates[0].messages] == ["user", "assistant", "user"]
    assert given.remarks == []


def test_transcripts_that_part_early_keep_all_that_follows() -> None:
    start = "\n\nHuman: Name a tree.\n\nAssistant: "
    given = read({"chosen": start + "Oak\n\nHuman: Another\n\nAssistant: Elm", "rejected": start + "Car"})
    assert texts(given) == [("Name a tree.", ["Oak\n\nHuman: Another\n\nAssistant: Elm", "Car"], [1, 2])]
    assert given.remarks == ["diverges_early"]


def test_transcripts_that_part_at_a_users_turn_go_back_to_the_one_before() -> None:
    start = "\n\nHuman: Name a tree.\n\nAssistant: Oak\n\nHuman: "
    given = read({"chosen": start + "A\n\nAssistant: B", "rejected": start + "C\n\nAssistant: D"})
    assert texts(given)[0][0] == "Name a tree."
    assert texts(given)[0][1][0] == "Oak\n\nHuman: A\n\nAssistant: B"


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Name a tree.", "chosen": "Oak", "rejected": "Car"},
        {"prompt": [USER], "chosen": [OAK], "rejected": [CAR]},
        {"chosen": [USER, OAK], "rejected": [USER, CAR]},
        {"prompt": "Name a tree.", "chosen": [USER, OAK], "rejected": [USER, CAR]},
    ],
    ids=["explicit standard", "explicit conversational", "implicit conversational", "both"],
)
def test_trl_pairs_in_all_their_forms_become_a_slate_of_two(record: dict[str, Any]) -> None:
    assert texts(read(record)) == [("Name a tree.", ["Oak", "Car"], [1, 2])]


def test_an_implicit_prompt_is_how_both_texts_begin_less_the_space_between() -> None:
    given = read({"chosen": "The sky is blue.", "rejected": "The sky is green."})
    assert texts(given) == [("The sky is", [" blue.", " green."], [1, 2])]


def test_a_pair_may_tie_and_say_how_strong_and_whose_it_is() -> None:
    pair = {"prompt": "Name a tree.", "chosen": "Oak", "rejected": "Elm"}
    assert texts(read(pair | {"tie": True}))[0][2] == [1, 1]
    ranking = read(pair | {"margin": 2 / 3, "labeler": "Ada"}).slates[0].rankings[0]
    assert (ranking.strength, ranking.labeler) == (Strength.BETTER, "Ada")
    assert read(pair | {"margin": 0.1}).remarks == ["margin_not_kept"]


def test_a_pair_of_one_text_is_left_out_and_reported() -> None:
    given = read({"prompt": "Name a tree.", "chosen": "Oak", "rejected": "Oak"})
    assert (given.slates, given.remarks) == ([], ["same_text"])


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Name a tree.", "completion": "Oak"},
        {"prompt": [USER], "completion": [OAK]},
        {"messages": [USER, OAK]},
    ],
)
def test_demonstrations_are_read_in_all_their_forms(record: dict[str, Any]) -> None:
    given = read_demonstration(record)
    assert (given.messages, given.text) == ([USER], "Oak")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({}, "no ranking we know"),
        (oasst(1), "holds 1, which is not 2"),
        (oasst(1, "2"), "completion 2: rank"),
        (oasst(1, float("inf")), "completion 2: rank"),
        (oasst(1, 2) | {"messages": []}, "not a list of turns"),
        (oasst(1, 2) | {"strength": "mildly"}, "'mildly'"),
        (oasst(1, 2) | {"order_shown": [0, 2]}, "order_shown"),
        (oasst(1, 2) | {"is_pick": "yes"}, "is_pick"),
        (oasst(1, 2, 3) | {"is_pick": True}, "is_pick"),
        (oasst(1, 1, 2) | {"is_pick": True}, "is_pick"),
        (oasst(1, 2) | {"submitted_at": "last week"}, "submitted_at"),
        (oasst(1, 2) | {"completions": [{"text": "a", "rank": 1, "quality": 8}, {"text": "b", "rank": 2}]}, "quality"),
        (squality({"a": 1, "b": 2}), "review 1 does not score"),
        (squality({"a": 1, "b": 2, "c": 3}) | {"reviews": []}, "reviews holds 0"),
        (pairwise(p12=1, p21=2), "judged twice"),
        (pairwise(p12=3), "3 is preferred"),
        (pairwise(p15=1), "not two different completions"),
        ({"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: c\n\nAssistant: d"}, "share no prompt"),
        ({"chosen": "Oak", "rejected": "Car"}, "do not begin alike"),
        ({"chosen": 1, "rejected": 2}, "neither two texts nor two lists"),
    ],
)
def test_a_record_that_is_not_what_it_seems_is_refused_with_the_reason(record: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRecord, match=reason):
        read(record)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"prompt": "Name a tree."}, "neither a completion nor"),
        ({"prompt": "Name a tree.", "completion": " "}, "empty"),
        ({"completion": "Oak"}, "no prompt"),
        ({"messages": [USER]}, "last turn of the assistant"),
    ],
)
def test_what_demonstrates_nothing_is_refused(record: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRecord, match=reason):
        read_demonstration(record)
