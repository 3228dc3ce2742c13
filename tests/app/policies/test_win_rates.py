"""Win rates of all versions: what is counted, the page, the files and the API."""

import csv
import io
from typing import Any

import pytest
from sqlalchemy.orm import Session

from app.db import clock
from app.policies.models import PolicyState, PolicyVersion
from app.policies.service import current_version
from app.projects.models import Project
from tests.app.conftest import Person
from tests.app.loop import make_version
from tests.app.policies.comparisons import make_comparisons

PAGE = "/projects/everyday/policies/win-rates"
API = "/api/v1/projects/everyday/policies/win-rates"


@pytest.fixture
def versions(session: Session, project: Project) -> list[PolicyVersion]:
    """Versions 1 to 6. 1, 2 and 3 were compared; 4 and 5 with each other only; 6 never."""
    others = [make_version(session, project, number, PolicyState.RETIRED) for number in range(2, 7)]
    versions = [current_version(session, project), *others]
    one, two, three, four, five, _ = versions
    make_comparisons(session, project, two, one, ["win"] * 16 + ["tie"] * 3 + ["loss"] * 2)
    make_comparisons(session, project, three, two, ["win", "loss", "tie"])
    make_comparisons(session, project, two, three, ["win"])
    make_comparisons(session, project, five, four, ["win", "loss"])
    session.commit()
    return versions


def pair(answer: dict[str, Any], version: int, against: int) -> tuple[int, int, int]:
    found = next(each for each in answer["pairs"] if (each["version"], each["against"]) == (version, against))
    return found["won"], found["tied"], found["lost"]


def test_every_comparison_counts_from_both_sides_whoever_was_the_candidate(
    researcher: Person, versions: list[PolicyVersion]
) -> None:
    answer = researcher.get(API).json()
    assert pair(answer, 2, 1) == (16, 3, 2)
    assert pair(answer, 1, 2) == (2, 3, 16)
    assert pair(answer, 2, 3) == (2, 1, 1)  # of both rounds
    assert len(answer["pairs"]) == 6
    assert answer["never_compared"] == [6]
    assert {(each["version"], each["group"]) for each in answer["strengths"]} == {
        (1, 1),
        (2, 1),
        (3, 1),
        (4, 2),
        (5, 2),
    }
    assert [each["version"] for each in answer["strengths"]][:1] == [2]  # the strongest of its group


def test_what_was_taken_back_is_left_out(researcher: Person, session: Session, project: Project) -> None:
    one, two = current_version(session, project), make_version(session, project, 2, PolicyState.RETIRED)
    first, second, *_ = make_comparisons(session, project, two, one, ["win", "win", "loss", "tie"])
    first.retracted_at = second.retracted_at = clock(session)
    session.commit()
    assert pair(researcher.get(API).json(), 2, 1) == (0, 1, 1)


def test_the_page_says_which_versions_have_no_common_scale(researcher: Person, versions: list[PolicyVersion]) -> None:
    page = " ".join(researcher.get(PAGE).text.split())
    assert "From all 27 blind comparisons ever made" in page
    assert "2 groups that were never compared with each other" in page
    assert "Group 2" in page
    assert "Never compared by people:" in page
    assert 'class="won"' in page
    assert 'class="lost"' in page


def test_a_project_without_comparisons_says_how_they_come_about(researcher: Person, project: Project) -> None:
    page = researcher.get(PAGE)
    assert page.status_code == 200
    assert "No two versions have been compared by people yet" in page.text
    assert researcher.get(API).json() == {"strengths": [], "pairs": [], "never_compared": [1]}


def test_the_files_have_what_the_page_has(researcher: Person, versions: list[PolicyVersion]) -> None:
    file = researcher.get(f"{PAGE}/pairs.csv")
    assert file.headers["content-disposition"] == 'attachment; filename="everyday-win-rates.csv"'
    rows = list(csv.DictReader(io.StringIO(file.text)))
    assert (rows[1]["version"], rows[1]["against"], rows[1]["won"], rows[1]["tied"]) == ("2", "1", "16", "3")
    assert float(rows[1]["win_rate"]) == pytest.approx(17.5 / 21)
    strengths = list(csv.DictReader(io.StringIO(researcher.get(f"{PAGE}/strengths.csv").text)))
    assert [(row["version"], row["group"]) for row in strengths[-2:]] == [("4", "2"), ("5", "2")]


@pytest.mark.parametrize("address", [PAGE, f"{PAGE}/pairs.csv", f"{PAGE}/strengths.csv", API])
def test_labelers_do_not_read_them(labeler: Person, versions: list[PolicyVersion], address: str) -> None:
    assert labeler.get(address).status_code == 403


def test_the_list_of_policies_leads_there(researcher: Person, versions: list[PolicyVersion]) -> None:
    assert f'href="{PAGE}"' in researcher.get("/projects/everyday/policies").text
