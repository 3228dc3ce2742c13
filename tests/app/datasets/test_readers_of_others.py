"""Files as others publish them: what a record becomes, and what it is refused for."""

from typing import Any

import pytest

from app.datasets.errors import BadRecord
from app.datasets.readers import RANKING_FORMATS, ranking_format_of
from app.datasets.readers.given import Given

Texts = list[tuple[str, list[str], list[int], str | None]]


def read(record: dict[str, Any]) -> Given:
    return RANKING_FORMATS[ranking_format_of(record)](record)


def texts(given: Given) -> Texts:
    """(last turn of the prompt, completions, ranks, labeler) of each ranking."""
    return [
        (slate.messages[-1]["content"], [item.text for item in slate.completions], ranking.ranks, ranking.labeler)
        for slate in given.slates
        for ranking in slate.rankings
    ]


def summaries(choice: Any = 0, **more: Any) -> dict[str, Any]:
    info = {"id": "p1", "post": "My oak fell.", "title": "Who pays?", "subreddit": "advice"}
    pair = [{"text": "Oak fell.", "policy": "sup1", "note": "Short."}, {"text": "Trees.", "policy": "ref"}]
    return {"info": info, "summaries": pair, "choice": choice, "worker": "w1"} | more


def answers(score: Any) -> dict[str, Any]:
    scores = {"score_0": score, "score_1": -score if isinstance(score, float) else score}
    return {"question": {"full_text": "Why green?"}, "answer_0": "Chlorophyll", "answer_1": "Paint", **scores}


def message(role: str, text: str, *replies: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"message_id": f"id of {text}", "role": role, "text": text, "replies": list(replies)} | more


def rated(**ratings: Any) -> dict[str, Any]:
    items = [{"response": text, "overall_score": rating} for text, rating in ratings.items()]
    return {"instruction": "Name a tree.", "completions": items}


def votes(*values: str, **more: Any) -> dict[str, Any]:
    cast = [{"annotator": f"w{place}", "value": value} for place, value in enumerate(values)]
    pair = [{"id": "x", "text": "Oak"}, {"id": "y", "text": "Car"}]
    return {"pair_id": "p1", "prompt": "Name a tree.", "completions": pair, "votes": cast} | more


def test_a_chosen_summary_is_the_better_one_in_its_workers_ranking() -> None:
    given = read(summaries(1, extra={"confidence": 8}))
    prompt = "SUBREDDIT: r/advice\n\nTITLE: Who pays?\n\nPOST: My oak fell.\n\nTL;DR:"
    assert texts(given) == [(prompt, ["Oak fell.", "Trees."], [2, 1], "w1")]
    assert given.remarks == ["confidence_not_kept"]
    assert [completion.facts for completion in given.slates[0].completions] == [{"policy": "sup1"}, {"policy": "ref"}]
    assert given.slates[0].rankings[0].notes == ["Short.", None]


def test_an_article_is_a_prompt_too_and_no_choice_is_a_tie() -> None:
    given = read(summaries(None, info={"article": "An oak fell."}))
    assert texts(given) == [("Article:\n\nAn oak fell.\n\nTL;DR:", ["Oak fell.", "Trees."], [1, 1], "w1")]


@pytest.mark.parametrize("strength", ["significantly", None])
def test_our_own_comparisons_of_summaries_state_their_strength(strength: str | None) -> None:
    extra = {"confidence": None, "strength": strength, "ranking_id": "r1", "tie": False}
    given = read(summaries(1, extra=extra))
    (ranking,) = given.slates[0].rankings
    assert (ranking.strength, ranking.original_id, given.remarks) == (strength, "r1", [])
    tie = read(summaries(1, extra=extra | {"strength": None, "tie": True}))
    assert tie.slates[0].rankings[0].ranks == [1, 1]


@pytest.mark.parametrize(("score", "ranks"), [(0.5, [1, 2]), (-1.0, [2, 1]), (0, [1, 1])])
def test_the_answer_with_the_higher_score_is_better_and_equal_ones_tie(score: float, ranks: list[int]) -> None:
    given = read(answers(score))
    assert texts(given) == [("Why green?", ["Chlorophyll", "Paint"], ranks, None)]
    assert given.slates[0].completions[0].facts == {"score": score}


def test_each_message_with_ranked_replies_is_a_slate_after_all_that_was_said_before() -> None:
    later = message(
        "prompter", "Another?", message("assistant", "Elm", rank=1), message("assistant", "Ash", rank=0, synthetic=True)
    )
    tree = {
        "message_tree_id": "t",
        "prompt": message(
            "prompter",
            "Name a tree.",
            message("assistant", "Oak", later, rank=0),
            message("assistant", "Car", rank=2),
            message("assistant", "Buy!", rank=1, review_result=False),
            message("assistant", "Late"),
        ),
    }
    given = read(tree)
    assert texts(given) == [
        ("Name a tree.", ["Oak", "Car"], [1, 2], None),
        ("Another?", ["Elm", "Ash"], [2, 1], None),
    ]
    assert [turn["content"] for turn in given.slates[1].messages] == ["Name a tree.", "Oak", "Another?"]
    assert [slate.key for slate in given.slates] == ["id of Name a tree.", "id of Another?"]
    assert given.slates[1].completions[1].facts == {"synthetic": True}
    assert given.remarks == ["replies_left_out"]


def test_a_tree_without_ranked_replies_is_left_out_and_a_deep_one_is_read() -> None:
    leaf = message("prompter", "End?", message("assistant", "a", rank=0), message("assistant", "b", rank=1))
    for number in range(2000):
        leaf = message("prompter", f"{number}?", message("assistant", "Go on.", leaf))
    assert len(read({"prompt": leaf}).slates[0].messages) == 2 * 2000 + 1
    assert read({"prompt": message("prompter", "Hi", message("assistant", "Ho", rank=0))}).remarks == ["nothing_ranked"]


def test_what_hangs_on_a_deleted_message_is_left_out() -> None:
    asked = message("prompter", "Why?", message("assistant", "a", rank=0), message("assistant", "b", rank=1))
    gone = message("assistant", "Gone", asked, deleted=True)
    assert read({"prompt": message("prompter", "Hi", gone)}).slates == []


def test_higher_ratings_are_better_and_equal_ones_tie() -> None:
    assert texts(read(rated(Oak=9, Car="2", Elm=9))) == [("Name a tree.", ["Oak", "Car", "Elm"], [1, 2, 1], None)]


def test_a_completion_without_a_rating_is_left_out() -> None:
    given = read(rated(Oak=9, Car="N/A", Elm=3))
    assert (texts(given)[0][1], given.remarks) == (["Oak", "Elm"], ["unrated"])
    assert (read(rated(Oak=9, Car=None)).slates, read(rated(Oak=9, Car=None)).remarks) == ([], ["unrated"])


def test_without_an_overall_rating_the_mean_of_the_aspects_counts() -> None:
    def item(text: str, *ratings: str) -> dict[str, Any]:
        return {"response": text, "annotations": {f"a{i}": {"Rating": value} for i, value in enumerate(ratings)}}

    given = read({"instruction": "Name a tree.", "completions": [item("Car", "1", "4"), item("Oak", "5", "N/A")]})
    assert texts(given) == [("Name a tree.", ["Car", "Oak"], [2, 1], None)]
    assert given.slates[0].completions[0].facts == {"rating": 1.0, "ratings": {"a0": 1.0, "a1": 4.0}}


def graded(text: str, **more: Any) -> dict[str, Any]:
    """A completion; capital letters are ratings of aspects."""
    aspects = {name: {"Rating": value} for name, value in more.items() if name.isupper()}
    overall = {name: value for name, value in more.items() if not name.isupper()}
    return {"response": text, "annotations": aspects} | overall


@pytest.mark.parametrize(
    ("items", "ranked", "remarks"),
    [
        # B is better than C by what both have, whatever A has besides.
        (
            [graded("A", overall_score=1), graded("B", rating=4), graded("C", rating=2)],
            {"B": 1, "C": 2},
            ["unrated"],
        ),
        ([graded("A", overall_score=1, rating=2), graded("B", rating=4)], {"A": 2, "B": 1}, []),
        # One that lacks an aspect is compared by the others, and not by a mean of fewer.
        ([graded("A", H="5", T="1"), graded("B", H="4", T="N/A")], {"A": 1, "B": 2}, []),
        (
            [graded("A", H="5", T="1"), graded("B", H="4", T="3"), graded("C", X="5")],
            {"A": 2, "B": 1},
            ["unrated"],
        ),
        ([graded("A", H="5"), graded("B", T="4")], {}, ["unrated"]),
    ],
    ids=["two scales", "the scale of all", "a missing aspect", "another aspect", "nothing in common"],
)
def test_ratings_are_compared_on_one_scale(
    items: list[dict[str, Any]], ranked: dict[str, int], remarks: list[str]
) -> None:
    given = read({"instruction": "Name a tree.", "completions": items})
    found = {
        completion.text: rank
        for slate in given.slates
        for completion, rank in zip(slate.completions, slate.rankings[0].ranks, strict=True)
    }
    assert (found, given.remarks) == (ranked, remarks)


def test_columns_of_generations_and_ratings_are_read_place_by_place() -> None:
    record = {
        "instruction": "Name a tree.",
        "generations": ["Car", "Oak"],
        "ratings": [1, 5],
        "generation_models": ["a", "b"],
    }
    given = read(record)
    assert texts(given) == [("Name a tree.", ["Car", "Oak"], [2, 1], None)]
    assert given.slates[0].completions[1].facts == {"model": "b", "rating": 5.0}


def test_each_vote_is_its_annotators_ranking_of_one_slate() -> None:
    given = read(votes("a1", "a2", "equal"))
    assert [ranks for _, _, ranks, _ in texts(given)] == [[1, 2], [2, 1], [1, 1]]
    assert (len(given.slates), [who for *_, who in texts(given)]) == (1, ["w0", "w1", "w2"])


def test_a_pairs_export_of_ours_names_the_ranking_it_comes_from() -> None:
    pair = {"prompt": "Name a tree.", "chosen": "Oak", "rejected": "Car", "ranking_id": "r1", "score_chosen": 8.0}
    given = read(pair)
    assert given.slates[0].rankings[0].original_id == "r1"
    assert [completion.facts for completion in given.slates[0].completions] == [{"score": 8.0}, {}]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (summaries("0"), "choice is '0'"),
        (summaries(True), "choice is True"),
        (summaries(summaries=[{"text": "One"}]), "summaries holds 1"),
        (summaries(info={"id": "p1"}), "info: post is missing"),
        (summaries(info=None), "neither info with a post"),
        (answers("0.5"), "answer 0: score_0 is the text '0.5' and not a number"),
        (answers(0.5) | {"question": {"id": 1}}, "no full_text"),
        ({"prompt": message("user", "Hi")}, "the role 'user'"),
        ({"prompt": message("prompter", "Hi", replies=["?"])}, "replies are not a list of messages"),
        (rated(Oak=None, Car=None), "no completion has a rating"),
        ({"instruction": "?", "generations": ["a", "b"], "ratings": [1]}, "not two lists of the same length"),
        (votes("a1", "a3"), "vote 2: value is 'a3'"),
        (
            votes(votes=[{"annotator": "w", "value": "a1"}, {"annotator": "w", "value": "a2"}]),
            "votes 1 and 2 are by one",
        ),
        ({"pair_id": "p", "arg1": "x", "arg2": "y", "votes": []}, "only their ids"),
        ({"prompt": "Name a tree.", "completion": "Oak", "label": True}, r"KTO.* is compared with nothing"),
        ({"message_id": "m", "parent_id": None, "text": "Hi", "role": "prompter"}, "the flat list of messages"),
        ({"info": {}, "summary": {"text": "a", "axes": {"overall": 3}}}, "axis_evals"),
    ],
)
def test_what_compares_nothing_or_is_broken_is_refused_with_the_reason(record: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRecord, match=reason):
        read(record)


def test_an_order_shown_that_names_a_completion_twice_is_refused() -> None:
    items = [{"text": "Oak", "rank": 1}, {"text": "Car", "rank": 2}]
    with pytest.raises(BadRecord, match="order_shown"):
        read({"prompt": "Name a tree.", "completions": items, "order_shown": [0, 1, 1]})
