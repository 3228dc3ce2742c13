"""The one family of errors by which a stage fails for a named reason: one sentence, and the next move."""


class StageError(Exception):
    """A stage cannot go on, for a reason a person can act on.

    code: stable; what is written into error.json and matched on.  advice: the next move, in one sentence.
    """

    code = "stage_error"

    def __init__(self, message: str, *, advice: str) -> None:
        super().__init__(message)
        self.message, self.advice = message, advice
