"""What can go wrong when a round is started, stopped or taken up again."""

from app.errors import PodiumError


class RoundError(PodiumError):
    """Something is wrong with a round."""

    code = "round_error"


class RoundNotFound(RoundError):
    """The project has no round of this number."""

    code = "round_not_found"

    def __init__(self, number: int) -> None:
        super().__init__(f"This project has no round {number}; choose one from the list of rounds.")


class RoundIsActive(RoundError):
    """Another round of the project is under way: at most one is."""

    code = "round_is_active"

    def __init__(self, number: int) -> None:
        super().__init__(f"Round {number} is under way; wait for its end, or cancel it, before you start another.")


class RoundIsOver(RoundError):
    """A round that has ended cannot be cancelled."""

    code = "round_is_over"

    def __init__(self, number: int, state: str) -> None:
        super().__init__(f"Round {number} has ended ({state}), so there is nothing to cancel.")


class NotResumable(RoundError):
    """Only a failed or cancelled round can be resumed."""

    code = "not_resumable"

    def __init__(self, number: int, state: str) -> None:
        super().__init__(f"Round {number} is {state.replace('_', ' ')}; only a failed or cancelled one can be resumed.")


class NotAwaitingLabels(RoundError):
    """The round has no comparison to end."""

    code = "not_awaiting_labels"

    def __init__(self, number: int) -> None:
        super().__init__(f"Round {number} waits for no comparisons, so there is nothing to end.")


class BadStages(RoundError):
    """The chosen stages do not make a round."""

    code = "bad_stages"


class BadRoundSetting(RoundError):
    """A setting of a stage is unknown or breaks its rule. problems: the message of each, by "recipe.setting"."""

    code = "bad_setting"

    def __init__(self, problems: dict[str, str]) -> None:
        super().__init__("; ".join(f"{setting} {rule}" for setting, rule in problems.items()), problems=problems)
        self.problems = problems


class MissingData(RoundError):
    """A chosen stage has nothing to learn from, or nothing to judge by."""

    code = "missing_data"


class NoRankings(MissingData):
    """No ranking of the train split implies a comparison."""

    code = "no_rankings"

    def __init__(self) -> None:
        super().__init__(
            "There is no ranking to fit a reward model to;"
            " rank some slates (one completion above another), then start again."
        )


class NoValidationRankings(MissingData):
    """No ranking of the validation split implies a comparison."""

    code = "no_validation_rankings"

    def __init__(self) -> None:
        super().__init__(
            "No ranking belongs to the validation split, so the reward model could not be judged;"
            " rank more slates (about one in ten belongs to it), then start again."
        )


class NoNewRankings(MissingData):
    """Only what is new was to be learned from, and on a side of the split nothing is."""

    code = "no_new_rankings"

    def __init__(self, split: str) -> None:
        super().__init__(
            f"reward.labels=latest_round learns from what no earlier round knew, and there is no such ranking of the"
            f" {split} split; rank more slates, or choose all labels."
        )


class NoDemonstrations(MissingData):
    """No demonstration on the side of the split that is needed."""

    code = "no_demonstrations"

    def __init__(self, split: str) -> None:
        super().__init__(
            f"There is no demonstration on the {split} side of the split; write or import some, or leave sft out."
        )


class NoPrompts(MissingData):
    """No prompt on the side of the split that is needed."""

    code = "no_prompts"

    def __init__(self, stage: str, split: str) -> None:
        super().__init__(
            f"{stage} needs prompts of the {split} split and there are none; import more prompts, then start again."
        )


class NoRewardModel(MissingData):
    """A stage that learns or judges by scores was asked for, without a reward model that gives them."""

    code = "no_reward_model"

    def __init__(self, stage: str, remedy: str = "choose the stage reward too") -> None:
        super().__init__(f"{stage} needs a reward model and the project has none yet; {remedy}.")


class StageNotFound(RoundError):
    """The round has no such stage."""

    code = "stage_not_found"

    def __init__(self, number: int, recipe: str) -> None:
        super().__init__(f"Round {number} has no stage {recipe!r}; go back to the round and choose one of its stages.")


class TryNotFound(RoundError):
    """The stage has not been begun anew that often."""

    code = "try_not_found"

    def __init__(self, recipe: str, number: int) -> None:
        super().__init__(f"The stage {recipe} has no earlier try {number}; go back to the round and choose one it has.")


class ChartNotFound(RoundError):
    """The stage has reported none of the chart's numbers."""

    code = "chart_not_found"

    def __init__(self, recipe: str, key: str) -> None:
        super().__init__(f"The stage {recipe} has no numbers called {key!r}; go back to the round and choose a chart.")


class NothingToRetry(RoundError):
    """Every stage of the round has succeeded: there are no settings to change."""

    code = "nothing_to_retry"

    def __init__(self, number: int) -> None:
        super().__init__(
            f"Every stage of round {number} has ended well, so none can be run again with other settings;"
            " resume the round, or start one like it."
        )


class BadComparison(RoundError):
    """Rounds are compared two to four at a time, and each must be one of the project's."""

    code = "bad_comparison"

    def __init__(self, problem: str) -> None:
        super().__init__(f"{problem} Go back to the list of rounds and choose two to four.")


class BadRule(RoundError):
    """The rule's numbers, stages or settings make no round. problems: the message of each, by field."""

    code = "bad_rule"

    def __init__(self, problems: dict[str, str]) -> None:
        super().__init__("; ".join(problems.values()), problems=problems)
        self.problems = problems


class NoRule(RoundError):
    """The project has no rule for rounds."""

    code = "no_rule"

    def __init__(self) -> None:
        super().__init__("This project has no rule for rounds; write one first.")


class NothingToReproduce(RoundError):
    """The model was imported: no stage made it."""

    code = "nothing_to_reproduce"

    def __init__(self, name: str) -> None:
        super().__init__(f"No round made {name}: it was imported, so there is nothing to train again; choose another.")
