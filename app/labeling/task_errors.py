"""What can go wrong while writing. Nothing that was written is lost with any of them."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from app.labeling.errors import LabelingError


class TaskNotOffered(LabelingError):
    """The project does not ask for this task, or not any more."""

    code = "task_not_offered"

    def __init__(self, on_offer: Sequence[str]) -> None:
        tasks = ", ".join(on_offer) or "nothing"
        super().__init__(f"This project does not ask for that, or not any more. It asks for: {tasks}.")


class SuggestionsNotOffered(TaskNotOffered):
    """The project lets nobody ask the policy for a suggestion."""

    code = "suggestions_not_offered"

    def __init__(self) -> None:
        LabelingError.__init__(self, "This project offers no suggestions. What you wrote is kept; go on without one.")


class WritingNotFound(LabelingError):
    """No such piece of writing, or someone else's: one answer for both."""

    code = "writing_not_found"

    def __init__(self, writing_id: UUID) -> None:
        super().__init__(f"You have begun no piece of writing {writing_id}. Open the page again to begin one.")


class WritingEnded(LabelingError):
    """It was submitted or given back, perhaps in another tab."""

    code = "writing_ended"

    def __init__(self, end: str) -> None:
        super().__init__(
            f"This piece of writing has ended ({end}), perhaps in another tab. Open the page again.", end=end
        )


class StaleWriting(LabelingError):
    """A newer draft exists, from another tab or machine. The answer carries it."""

    code = "stale_draft"

    def __init__(self, revision: int, content: dict[str, Any]) -> None:
        super().__init__(
            "A newer draft of this was saved elsewhere. Continue from that one.",
            draft={"revision": revision, "content": content},
        )


class OnboardingFirst(LabelingError):
    """A newcomer ranks the onboarding slates before anything else."""

    code = "onboarding_first"

    def __init__(self, slug: str) -> None:
        self.page = f"/projects/{slug}/rank"
        super().__init__("Rank this project's onboarding slates first; then the other tasks are open.", page=self.page)


class TurnNotFound(LabelingError):
    """No such turn, or someone else's."""

    code = "turn_not_found"

    def __init__(self, turn_id: UUID) -> None:
        super().__init__(f"You have written no turn {turn_id}. Open the conversation again.")


class TurnIsOpen(LabelingError):
    """The last turn waits for replies or for a choice among them."""

    code = "turn_is_open"

    def __init__(self) -> None:
        super().__init__("Choose how your last turn was answered first, or take it back; what you wrote is kept.")


class TurnIsClosed(LabelingError):
    """The turn has no replies to choose among: they are being written, could not be, or it was taken back."""

    code = "turn_is_closed"

    def __init__(self) -> None:
        super().__init__("This turn has no replies to choose among now. Open the conversation again.")


class ChosenIsNotBest(LabelingError):
    """The conversation would go on with a reply that the ranking places below another."""

    code = "chosen_is_not_best"

    def __init__(self) -> None:
        super().__init__("Go on with a reply of rank 1, or correct the ranks; nothing was stored yet.")


class IncompleteWriting(LabelingError):
    """Something that makes the demonstration is missing."""

    code = "incomplete_writing"

    def __init__(self, missing: str) -> None:
        super().__init__(f"{missing}. Nothing was submitted yet, and what you wrote is kept.")


class WritingTooLong(LabelingError):
    """The prompt is longer than the project allows, or prompt and answer do not fit into the policy's context."""

    code = "writing_too_long"

    def __init__(self, what: str, num_tokens: int, limit: int) -> None:
        super().__init__(
            f"{what} {num_tokens} tokens long; at most {limit} can be used. Shorten it and submit again; it is kept."
        )


class SubmissionIdTaken(LabelingError):
    """The id names another submission."""

    code = "submission_id_taken"

    def __init__(self, submission_id: UUID) -> None:
        super().__init__(f"The id {submission_id} is already in use. Make a new random id for each submission.")


class SubmissionNotFound(LabelingError):
    """No such submission, or someone else's."""

    code = "submission_not_found"

    def __init__(self, submission_id: UUID) -> None:
        super().__init__(f"You have submitted no demonstration {submission_id}.")


class DemonstrationInUse(LabelingError):
    """Something was made from the demonstration: it can no longer be taken back."""

    code = "demonstration_in_use"

    def __init__(self, holder: str) -> None:
        super().__init__(f"This demonstration can no longer be taken back: {holder} already uses it.")


class SuggestionNotFound(LabelingError):
    """No suggestion with this id was asked for here, or it has not been written."""

    code = "suggestion_not_found"

    def __init__(self) -> None:
        super().__init__("There is no such suggestion. Ask for a new one; what you wrote is kept.")
