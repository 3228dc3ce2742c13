"""What can go wrong when a person is erased."""

from app.errors import PodiumError


class PrivacyError(PodiumError):
    """Something about an erasure was refused; nothing was changed."""


class AlreadyErased(PrivacyError):
    """There is nothing left that says who it was."""

    code = "already_erased"

    def __init__(self) -> None:
        super().__init__("This person was erased already: the audit log says when, and what of them it named.")


class NotConfirmed(PrivacyError):
    """What was typed is not what the page asked for."""

    code = "erasure_not_confirmed"

    def __init__(self, wanted: str) -> None:
        super().__init__(f"Nothing was erased: to go on, type “{wanted}” exactly as it stands here.")


class LearningUnderWay(PrivacyError):
    """A round of the project reads its labels now."""

    code = "learning_under_way"

    def __init__(self, project: str, number: int) -> None:
        super().__init__(
            f"Nothing was erased: round {number} of {project} is under way and learns from the labels as they are;"
            " wait for its end, or cancel it, and erase then."
        )


class EvaluationUnderWay(PrivacyError):
    """A reward model is judged, or waits to be, on a snapshot that holds labels of the person."""

    code = "evaluation_under_way"

    def __init__(self, project: str, evaluation_id: int) -> None:
        super().__init__(
            f"Nothing was erased: evaluation {evaluation_id} of a reward model of {project} reads a snapshot with these"
            " labels, or waits for its turn; wait for its end, or cancel it, and erase then."
        )


class HasAnAccount(PrivacyError):
    """The labeler is somebody's account, which is erased as a whole."""

    code = "has_an_account"

    def __init__(self, account_id: int) -> None:
        super().__init__("This labeler has an account: whoever manages it erases the person from there.")
        self.page = f"/people/{account_id}/erase"


class ErasureNotFound(PrivacyError):
    """No such erasure, or one that whoever asks did not make."""

    code = "erasure_not_found"

    def __init__(self, erasure_id: int) -> None:
        super().__init__(f"There is no erasure {erasure_id} that you may look at; the audit log lists those there are.")
