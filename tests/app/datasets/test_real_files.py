"""Real files, in the folder that PODIUM_SHARED_DATA names, import with the counts that their description states.

The expectations are written down from that description, by hand.
"""

import os
import re
from pathlib import Path

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from app.datasets.imports import import_file
from app.labeling.models import Slate
from app.people.models import Labeler
from app.projects.models import Project
from tests.app.datasets.conftest import NOW
from tests.app.datasets.test_import_docs import PAGE

SHARED = os.environ.get("PODIUM_SHARED_DATA")
pytestmark = pytest.mark.skipif(SHARED is None, reason="PODIUM_SHARED_DATA names no folder of real files")
EXPECTED = [
    ("prompts", "oasst_prompts_dev.jsonl", {"lines": 125, "prompts": 125}),
    ("rankings", "oasst_rankings_dev.jsonl", {"slates": 108, "rankings": 108, "comparisons": 402}),
    ("rankings", "squality_rankings_dev.jsonl.gz", {"slates": 40, "rankings": 40 * 3}),
    # 250 questions: 241 fit an ordering; the 9 others have 6 pairs each.
    ("rankings", "qa_feedback_4way_dev.jsonl.gz", {"lines": 250, "slates": 241 + 9 * 6, "fits_no_ordering": 9}),
    ("rankings", "hh_harmless_pairs_dev.jsonl.gz", {"slates": 744, "comparisons": 744, "diverges_early": 1}),
]


@pytest.mark.parametrize(("what", "name", "expected"), EXPECTED)
def test_real_files_give_the_counts_of_their_description(
    session: Session, garden: Project, what: str, name: str, expected: dict[str, int]
) -> None:
    with (Path(SHARED or "") / name).open("rb") as file:
        report = import_file(session, garden, what, file, name, now=NOW).report
    assert {key: report["counts"].get(key) for key in expected} == expected


def test_votes_on_arguments_are_their_annotators_rankings_once_the_texts_are_put_in(
    session: Session, garden: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("convarg_arguments_dev.jsonl.gz", "convarg_pair_votes_dev.jsonl.gz"):
        (tmp_path / name).symlink_to(Path(SHARED or "") / name)
    monkeypatch.chdir(tmp_path)
    (recipe,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    exec(compile(recipe, "docs/imports.md", "exec"), {})
    with (tmp_path / "convarg.jsonl").open("rb") as file:
        counts = import_file(session, garden, "rankings", file, "convarg.jsonl", now=NOW).report["counts"]
    assert (counts["slates"], counts["rankings"], counts["labelers"]) == (4721, 23_550, 3000)
    assert session.scalar(select(func.count(Slate.id))) == 4721
    ties = "SELECT count(*) FROM ranking WHERE NOT EXISTS (SELECT FROM comparison WHERE ranking_id = ranking.id)"
    assert counts["comparisons"] == 23_550 - (session.scalar(text(ties)) or 0)
    assert session.scalar(select(func.count(func.distinct(Labeler.pseudonym)))) == 3000
