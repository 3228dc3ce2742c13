"""What every test of a recipe holds it to, beside its own subject."""

import pytest

from tests.docs.reference.metrics import known_metrics
from trainer.round_folder import JsonLines


@pytest.fixture(autouse=True)
def _docs_know_every_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe measures nothing that docs/reference/metrics.md does not tell (tests/docs/reference/metrics.py)."""
    record, known = JsonLines.record, known_metrics()

    def record_what_is_known(lines: JsonLines, step: int, **values: float | None) -> None:
        assert set(values) <= known, f"docs/reference/metrics.md does not tell {set(values) - known}"
        record(lines, step, **values)

    monkeypatch.setattr(JsonLines, "record", record_what_is_known)
