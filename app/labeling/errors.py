"""What can go wrong while ranking. A ranking itself is refused only for an unknown lease or an incomplete form."""

from typing import Any
from uuid import UUID

from app.errors import PodiumError


class LabelingError(PodiumError):
    """The base of what this area refuses."""

    code = "labeling_error"


class LeaseNotFound(LabelingError):
    """No such lease, or someone else's: one answer for both, so that ids cannot be probed."""

    code = "lease_not_found"

    def __init__(self, lease_id: UUID) -> None:
        super().__init__(f"You hold no lease {lease_id}. Open the ranking page again to get a slate.")


class LeaseEnded(LabelingError):
    """The lease was submitted, skipped, or has expired and its slot was given on."""

    code = "lease_ended"

    def __init__(self, end: str) -> None:
        super().__init__(f"This lease has ended ({end}). Open the ranking page again to get a slate.", end=end)


class AlreadyRanked(LabelingError):
    """The lease has a ranking with another id: another tab was first."""

    code = "already_ranked"

    def __init__(self, ranking_id: UUID) -> None:
        super().__init__(
            "You have already submitted this slate, perhaps in another tab; the first ranking stands. "
            "Take it back to rank the slate again.",
            ranking_id=str(ranking_id),
        )


class RankingIdTaken(LabelingError):
    """The id names the ranking of another slate."""

    code = "ranking_id_taken"

    def __init__(self, ranking_id: UUID) -> None:
        super().__init__(f"The ranking id {ranking_id} is already in use. Make a new random id for each slate.")


class IncompleteRanking(LabelingError):
    """A completion of the slate has no rank, or something names a completion that is not on it."""

    code = "incomplete_ranking"

    def __init__(self, message: str) -> None:
        super().__init__(f"{message}. Complete the form and submit again; nothing was stored yet.")


class StrengthDoesNotFit(LabelingError):
    """Strength is asked of two completions only, and a tie has none but `negligibly`."""

    code = "strength_does_not_fit"

    def __init__(self, message: str) -> None:
        super().__init__(f"{message}. Correct the strength and submit again; nothing was stored yet.")


class StaleDraft(LabelingError):
    """A newer draft of the slate exists, from another tab or machine. The answer carries it."""

    code = "stale_draft"

    def __init__(self, revision: int, content: dict[str, Any]) -> None:
        super().__init__(
            "A newer draft of this slate was saved elsewhere. Continue from that one.",
            draft={"revision": revision, "content": content},
        )


class ProjectPaused(LabelingError):
    """An admin paused the project: no slates are given out. Open work can still be submitted."""

    code = "project_paused"

    def __init__(self) -> None:
        super().__init__("This project is paused, so no slates are given out; come back when its admin resumes it.")


class RankingNotFound(LabelingError):
    """No such ranking, or someone else's."""

    code = "ranking_not_found"

    def __init__(self, ranking_id: UUID) -> None:
        super().__init__(f"You have submitted no ranking {ranking_id}.")


class RankingInUse(LabelingError):
    """A snapshot or a finished comparison holds the ranking: it can no longer be taken back."""

    code = "ranking_in_use"

    def __init__(self, holder: str) -> None:
        super().__init__(f"This ranking can no longer be taken back: {holder} already uses it.")
