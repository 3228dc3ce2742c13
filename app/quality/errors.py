"""What can go wrong with quality control."""

from app.errors import PodiumError

RETRY_AFTER_S = 15  # a report takes some seconds to a minute


class StepNotPossible(PodiumError):
    """The step does not follow from where the labeler stands: warn, then pause, then review."""

    code = "step_not_possible"


class ReasonMissing(PodiumError):
    """A step or a decision without the reason that others will read."""

    code = "reason_missing"

    def __init__(self) -> None:
        super().__init__("Write the reason, in 1 to 2,000 characters; nothing was stored.")


class SlateNotInQueue(PodiumError):
    """No such slate to decide on, or fewer than two people ranked it."""

    code = "slate_not_in_queue"

    def __init__(self) -> None:
        super().__init__("This slate is not in the adjudication queue: reload the queue to see what is.")


class AlreadyAdjudicated(PodiumError):
    """Somebody has decided on this slate; the first decision stands."""

    code = "already_adjudicated"

    def __init__(self) -> None:
        super().__init__(
            "Somebody has decided on this slate meanwhile; their decision stands and yours was not stored."
        )


class BadDecision(PodiumError):
    """A decision that does not rank every completion of the slate."""

    code = "bad_decision"

    def __init__(self) -> None:
        super().__init__("Give each completion a rank; nothing was stored.")


class ReportBeingMade(PodiumError):
    """The first report of a large project's filter is being made."""

    code = "report_being_made"

    def __init__(self) -> None:
        super().__init__(
            "There are too many rankings to report on while a page waits: the report is being made, in about a minute"
            " for a million. Load this page again then; from then on it is there at once.",
            retry_after_s=RETRY_AFTER_S,
        )


class QualityChartNotFound(PodiumError):
    """No chart of this name."""

    code = "chart_not_found"

    def __init__(self, key: str) -> None:
        super().__init__(f"The quality page has no chart {key!r}.")
