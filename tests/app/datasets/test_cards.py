"""The card of a snapshot: what Hugging Face reads of it, and what was measured when it was frozen."""

from typing import Any

import pytest
import yaml
from huggingface_hub import DatasetCard
from sqlalchemy.orm import Session

from app.datasets.cards import dataset_card
from app.datasets.filters import SnapshotFilter
from app.datasets.labeler_groups import held_out_among
from app.datasets.models import Snapshot
from app.datasets.snapshots import create_snapshot
from app.labeling.models import SlateKind
from app.projects.models import Guidelines, Project
from tests.app.datasets.conftest import NOW, AddRanking, days
from trainer import stage_data


def freeze(session: Session, project: Project, **options: Any) -> Snapshot:
    snapshot = create_snapshot(session, project, name="May: “first”", account=None, now=NOW, **options)
    session.commit()
    return snapshot


@pytest.mark.parametrize("licence", ["cc-by-4.0", None])
def test_hugging_face_reads_the_card(
    session: Session, garden: Project, add_ranking: AddRanking, licence: str | None
) -> None:
    add_ranking()
    card = dataset_card(garden, freeze(session, garden, licence=licence))
    read = DatasetCard(card, ignore_metadata_errors=False).data.to_dict()
    assert read["license"] == (licence or "unknown")
    assert read["size_categories"] == ["n<1K"]
    assert read["pretty_name"] == "Garden: May: “first”"
    assert yaml.safe_load(card.split("---\n")[1])["task_categories"] == ["reinforcement-learning", "text-generation"]


def test_the_longer_one_is_preferred_in_two_of_three_comparisons(
    session: Session, garden: Project, add_ranking: AddRanking
) -> None:
    """Counted by hand: 1 of 3, then 3 of 3, one tie, and two of one length, of which neither is longer."""
    texts = ("a", "middle", "the long one")
    add_ranking((1, 3, 2), texts=texts, kind=SlateKind.IMPORTED, prompt="One?")
    add_ranking((3, 2, 1), texts=texts, kind=SlateKind.IMPORTED, prompt="Two?")
    add_ranking((1, 1), texts=("same", "tied"), kind=SlateKind.PAIR, prompt="Three?")
    add_ranking((1, 2), texts=("size", "same"), kind=SlateKind.PAIR, prompt="Four?")
    biases = freeze(session, garden).measured["biases"]
    assert (biases["longer_is_better"]["value"], biases["longer_is_better"]["num"]) == (pytest.approx(4 / 6), 6)
    assert biases["longer_is_better"]["low"] is None  # four prompts
    assert biases["ties"] == pytest.approx(1 / 8)


def test_the_first_shown_is_held_against_what_was_shown_here_alone(
    session: Session, garden: Project, add_ranking: AddRanking
) -> None:
    """Fixtures show completions in reverse: of (1, 2, 3, 4) the best was shown last."""
    add_ranking((1, 2, 3, 4))
    add_ranking((2, 1), kind=SlateKind.PAIR)
    add_ranking((2, 1), kind=SlateKind.IMPORTED)
    first = freeze(session, garden).measured["biases"]["first_is_better"]
    assert (first["value"], first["num"]) == (pytest.approx(1 / 7), 7)


def test_agreement_is_that_of_two_people_and_stays_as_it_was_frozen(
    session: Session, garden: Project, add_ranking: AddRanking
) -> None:
    slate = add_ranking((1, 2, 3, 4)).slate
    add_ranking((2, 1, 3, 4), slate=slate, labeler="Otto")
    snapshot = freeze(session, garden)
    assert snapshot.measured["agreement"]["alike"]["value"] == pytest.approx(5 / 6)
    before = dataset_card(garden, snapshot)
    add_ranking((4, 3, 2, 1), slate=slate, labeler="Johanna")
    session.expire_all()
    assert dataset_card(garden, snapshot) == before
    assert "83.3% (too few prompts for an interval)" in before


def test_guidelines_are_those_in_force_when_each_ranking_was_given(
    session: Session, garden: Project, add_ranking: AddRanking
) -> None:
    for version, since in ((1, 10), (2, 5)):
        session.add(
            Guidelines(project_id=garden.id, version=version, markdown="Be kind.", created_at=NOW - days(since))
        )
    for age in (12, 7, 5, 1):
        add_ranking(submitted_at=NOW - days(age))
    snapshot = freeze(session, garden)
    assert snapshot.measured["guidelines"] == {"versions": {"1": 1, "2": 2}, "before": 1, "imported": 0}
    assert "Version 1: 1 rankings; version 2: 2 rankings; before the first version: 1." in dataset_card(
        garden, snapshot
    )


def test_people_are_told_by_numbers_groups_and_hours_and_never_by_name(
    session: Session, garden: Project, add_ranking: AddRanking
) -> None:
    for name in ("Ada", "Ada", "Ada", "Otto"):
        add_ranking(labeler=name)
    snapshot = freeze(session, garden)
    assert snapshot.measured["hours"] == {"hours": pytest.approx(4 * 12.5 / 3600), "num_timed": 4}
    assert snapshot.measured["labeler_groups"]["imported"] == 2
    assert snapshot.measured["biases"]["most_productive"] == 0.75
    card = dataset_card(garden, snapshot)
    assert "The labeler who gave most gave 75.0% of the rankings" in card
    assert not {"Ada", "Otto"} & set(card.split())


def test_the_card_counts_whom_a_model_of_this_snapshot_leaves_out(
    session: Session, garden: Project, add_ranking: AddRanking
) -> None:
    names = {add_ranking(labeler="x" * number).labeler.pseudonym for number in range(1, 11)}
    held_out = stage_data.held_out_labelers(names)
    assert held_out
    whole = freeze(session, garden)
    assert whole.measured["labeler_groups"]["held_out"] == len(held_out)
    assert f"{len(held_out)} whom a reward model fitted to these rankings leaves out" in dataset_card(garden, whole)
    nine = sorted(names - {min(names - held_out)})
    few = create_snapshot(
        session, garden, name="Nine people", filter=SnapshotFilter(labelers=tuple(nine)), account=None, now=NOW
    )
    assert few.counts["labelers"] == 9
    assert "held_out" not in few.measured["labeler_groups"]


def test_the_held_out_group_is_the_one_that_the_trainer_holds_out() -> None:
    for num in (0, 9, 10, 200):
        names = {f"labeler-{number}" for number in range(num)}
        assert held_out_among(names) == stage_data.held_out_labelers(names)
