"""Several reviewers' scores of the same completions, as SQuALITY has them. Pure."""

from collections.abc import Sequence

from app.datasets.errors import BadRecord
from app.datasets.files import Record
from app.datasets.orderings import dense
from app.datasets.readers.fields import list_of_objects, number, optional_text, prompt_of, text_of
from app.datasets.readers.given import Given, GivenCompletion, GivenRanking, GivenSlate


def read_squality(record: Record) -> Given:
    """Several reviewers' rankings of the same completions (SQuALITY, arXiv:2205.11465): overall_rank, 1 is best."""
    items = list_of_objects(record, "completions", at_least=2)
    systems = [text_of(item, "system", f"completion {place}") for place, item in enumerate(items, start=1)]
    if len(set(systems)) < len(systems):
        raise BadRecord("two completions are of one system")
    completions = [
        GivenCompletion(text_of(item, "text", f"completion {place}"), facts={"system": item["system"]})
        for place, item in enumerate(items, start=1)
    ]
    reviews = list_of_objects(record, "reviews", at_least=1)
    rankings = [review_ranking(place, review, systems) for place, review in enumerate(reviews, start=1)]
    labelers = [ranking.labeler for ranking in rankings]
    if len(set(labelers)) < len(labelers):
        raise BadRecord("two reviews are by one annotator")
    slate = GivenSlate(prompt_of(record), completions, rankings, key=optional_text(record, "id"))
    return Given([slate], ["ratings_not_kept"])


def review_ranking(place: int, review: Record, systems: Sequence[str]) -> GivenRanking:
    scores = review.get("scores")
    if not isinstance(scores, dict) or set(scores) != set(systems):
        raise BadRecord(f"review {place} does not score each completion's system once")
    ranks = [number(scores[system], "overall_rank", f"review {place}, {system}") for system in systems]
    return GivenRanking(dense(ranks), labeler=text_of(review, "annotator", f"review {place}"))
