"""Comparisons of two answers with their quotes (WebGPT, Nakano et al. 2021, arXiv:2112.09332), as published. Pure."""

from app.datasets.errors import BadRecord
from app.datasets.files import Record
from app.datasets.orderings import dense
from app.datasets.readers.fields import checked, number, optional_text, prompt_of, said, text_of
from app.datasets.readers.given import Given, GivenCompletion, GivenRanking, GivenSlate
from app.prompts.messages import Messages, user_message


def read_webgpt(record: Record) -> Given:
    """{question, answer_0, answer_1, score_0, score_1, quotes_0, quotes_1}: equal scores are a tie.

    Scores go from -1 to 1 and sum to 0. They and the quotes stay with the answers as facts.
    """
    scores = [number(record, f"score_{place}", f"answer {place}") for place in (0, 1)]
    texts = [text_of(record, f"answer_{place}") for place in (0, 1)]
    if texts[0] == texts[1]:
        return Given([], ["same_text"])
    completions = [
        GivenCompletion(text, facts=said({"score": score, "quotes": record.get(f"quotes_{place}")}))
        for place, (text, score) in enumerate(zip(texts, scores, strict=True))
    ]
    ranking = GivenRanking(
        dense([-score for score in scores]),
        labeler=optional_text(record, "labeler"),
        original_id=optional_text(record, "ranking_id"),
    )
    remarks = ["tokens_not_kept"] if record.get("tokens_0") is not None else []
    return Given([GivenSlate(question_of(record), completions, [ranking])], remarks)


def question_of(record: Record) -> Messages:
    """The question's text; as published it is an object that also names its data set and id."""
    question = record.get("question")
    if not isinstance(question, dict):
        return prompt_of(record)
    if not isinstance(question.get("full_text"), str):
        raise BadRecord("question has no full_text")
    return checked(question["full_text"], user_message)
