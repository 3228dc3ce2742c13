"""Completions with ratings, as UltraFeedback (Cui et al. 2023, arXiv:2310.01377) and distilabel have them. Pure."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from app.datasets.errors import BadRecord
from app.datasets.files import Record
from app.datasets.orderings import dense
from app.datasets.readers.fields import is_number, list_of_objects, optional_text, prompt_of, said
from app.datasets.readers.given import Given, GivenCompletion, GivenRanking, GivenSlate

TEXTS = ("response", "text", "completion")
OVERALL = ("overall_score", "fine-grained_score", "rating", "score")


def read_ratings(record: Record) -> Given:
    """{instruction, completions: [{response, model, overall_score or annotations}]}: a higher rating is better.

    Equal ratings are ties. All are compared on one scale: of overall_score, fine-grained_score, rating, score and the
    mean of the annotations' ratings, the first that the most completions have; the others are left out. A mean is over
    the aspects that the most completions were rated in. The ratings stay with the completions as facts.
    """
    items = aligned(record) if "generations" in record else list_of_objects(record, "completions", at_least=2)
    ratings = overall_ratings(items)
    rated = [(item, rating) for item, rating in zip(items, ratings, strict=True) if rating is not None]
    remarks = ["unrated"] if len(rated) < len(items) else []
    if len(rated) < 2:
        return Given([], ["unrated"])
    completions = [rated_completion(place, item, rating) for place, (item, rating) in enumerate(rated, start=1)]
    ranking = GivenRanking(
        dense([-rating for _, rating in rated]),
        labeler=optional_text(record, "annotator") or optional_text(record, "labeler"),
    )
    return Given([GivenSlate(prompt_of(record), completions, [ranking], optional_text(record, "id"))], remarks)


def aligned(record: Record) -> list[Record]:
    """distilabel's columns, which name the same completion at the same place."""
    columns = [record.get(name) for name in ("generations", "ratings", "generation_models")]
    texts, ratings, models = columns
    if not isinstance(texts, list) or not isinstance(ratings, list) or not 2 <= len(texts) == len(ratings):
        raise BadRecord("generations and ratings are not two lists of the same length, at least 2")
    if models is not None and (not isinstance(models, list) or len(models) != len(texts)):
        raise BadRecord("generation_models does not name a model for each generation")
    return [
        {"response": text, "rating": rating, "model": None if models is None else models[place]}
        for place, (text, rating) in enumerate(zip(texts, ratings, strict=True))
    ]


def overall_ratings(items: Sequence[Record]) -> list[float | None]:
    """Each completion's rating on one scale, or None: the scale that most of them were rated on."""
    scales = [[rating_of(item.get(name)) for item in items] for name in OVERALL]
    scales.append(means_of([aspects_of(item.get("annotations")) for item in items]))
    if all(rating is None for ratings in scales for rating in ratings) and not any(
        aspects_of(item.get("annotations")) for item in items
    ):
        raise BadRecord(f"no completion has a rating: neither {', '.join(OVERALL)} nor annotations with ratings")
    return max(scales, key=lambda ratings: sum(rating is not None for rating in ratings))


def rating_of(value: Any) -> float | None:
    """A number, or a text of one: UltraFeedback has its ratings as texts, and “N/A” where there is none."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    return float(value) if is_number(value) else None


def aspects_of(annotations: Any) -> dict[str, float]:
    """Aspect -> rating, of those that have one."""
    found = annotations.items() if isinstance(annotations, dict) else ()
    ratings = {
        name: rating_of(aspect.get("Rating", aspect.get("rating")))
        for name, aspect in found
        if isinstance(aspect, dict)
    }
    return {name: rating for name, rating in ratings.items() if rating is not None}


def means_of(annotations: Sequence[dict[str, float]]) -> list[float | None]:
    """The mean over the aspects that most completions were rated in, of those that have each of these."""
    counts = Counter(name for aspects in annotations for name in aspects)
    common = [name for name, count in counts.items() if count == max(counts.values())]
    return [
        sum(aspects[name] for name in common) / len(common) if common and aspects.keys() >= set(common) else None
        for aspects in annotations
    ]


def rated_completion(place: int, item: Record, rating: float) -> GivenCompletion:
    text = next((item[name] for name in TEXTS if item.get(name) is not None), None)
    if not isinstance(text, str):
        raise BadRecord(f"completion {place}: response is missing or not a text")
    facts = said({"model": item.get("model"), "rating": rating, "ratings": aspects_of(item.get("annotations")) or None})
    return GivenCompletion(text, optional_text(item, "id"), facts)
