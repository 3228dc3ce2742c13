"""What can go wrong with reward models and their evaluations."""

from app.errors import PodiumError


class RewardModelError(PodiumError):
    """Something about reward models was refused."""

    code = "reward_model_error"


class RewardModelNotFound(RewardModelError):
    """The project has no reward model of this number."""

    code = "reward_model_not_found"

    def __init__(self, number: int) -> None:
        super().__init__(f"This project has no reward model {number}; the page of reward models lists those there are.")


class EvaluationNotFound(RewardModelError):
    """The project has no such evaluation of a reward model."""

    code = "reward_evaluation_not_found"

    def __init__(self, evaluation_id: int) -> None:
        super().__init__(f"This project has no evaluation {evaluation_id}; the page of reward models lists them.")


class NoReportYet(RewardModelError):
    """The evaluation has not ended, or ended without a report."""

    code = "no_report_yet"

    def __init__(self, evaluation_id: int, state: str) -> None:
        super().__init__(f"Evaluation {evaluation_id} is {state}, so there is no report; its page says how far it is.")


class BadEvaluation(RewardModelError):
    """What was asked for names no model, no rankings, or contradicts itself."""

    code = "bad_evaluation"


class ModelFromElsewhere(RewardModelError):
    """Somebody who does not run the installation named a folder or a hub's model."""

    code = "role_too_low"

    def __init__(self) -> None:
        super().__init__(
            "Only a site admin may have a model from elsewhere evaluated: the trainer opens whatever is named. Choose a"
            " reward model of this project, or ask whoever runs this installation."
        )


class NotCancellable(RewardModelError):
    """The evaluation has ended already."""

    code = "evaluation_ended"

    def __init__(self, evaluation_id: int) -> None:
        super().__init__(f"Evaluation {evaluation_id} has ended, so there is nothing to cancel.")


class ScoresMissing(RewardModelError):
    """The table of scores is not where it should be, or is not the one that was registered."""

    code = "scores_missing"

    def __init__(self, problem: str) -> None:
        super().__init__(f"The scores of this report cannot be had: {problem}. Evaluate the model again to have them.")


class ScoresAway(RewardModelError):
    """The artifact store, which has the scores, does not answer now."""

    code = "scores_away"

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"The scores of this report cannot be had now: {problem}. They are safe there; try again when the store"
            " answers."
        )


class NothingInCommon(RewardModelError):
    """Two reports judge no ranking in common."""

    code = "nothing_in_common"

    def __init__(self) -> None:
        super().__init__(
            "The two reports have no ranking in common, so the models cannot be compared; evaluate both on the same"
            " snapshot and splits."
        )


class BadScoring(RewardModelError):
    """What a reward model is asked to score cannot be scored."""

    code = "bad_scoring"


class ScoringNotFound(RewardModelError):
    """The project has no such scoring."""

    code = "scoring_not_found"

    def __init__(self) -> None:
        super().__init__("This project has no such scoring; ask the reward model again.")
