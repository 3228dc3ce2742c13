"""What can go wrong with policy versions."""

from collections.abc import Mapping

from app.errors import PodiumError


class PolicyError(PodiumError):
    """Something is wrong with a policy version."""

    code = "policy_error"


class PolicyVersionNotFound(PolicyError):
    """The project has no policy version of this number."""

    code = "policy_version_not_found"

    def __init__(self, number: int) -> None:
        super().__init__(f"This project has no policy version {number}; choose one from the list of versions.")


class NotPromotable(PolicyError):
    """The version is current already, or was rejected."""

    code = "not_promotable"

    def __init__(self, number: int, state: str) -> None:
        reason = "is the current policy already" if state == "current" else f"is {state}"
        super().__init__(
            f"Policy version {number} {reason}, so it cannot be promoted; choose a candidate or a retired one."
        )


class CurrentPolicyChanged(PolicyError):
    """Someone else promoted a version after this person's page was drawn."""

    code = "current_policy_changed"

    def __init__(self, number: int) -> None:
        super().__init__(
            f"Somebody promoted version {number} in the meantime, so nothing was changed; look at it and decide again."
        )


class NothingToRollBackTo(PolicyError):
    """No other version has been current."""

    code = "nothing_to_roll_back_to"

    def __init__(self) -> None:
        super().__init__("No other version has been current, so there is nothing to roll back to.")


class NotRejectable(PolicyError):
    """Only a candidate can be rejected."""

    code = "not_rejectable"

    def __init__(self, number: int, state: str) -> None:
        super().__init__(f"Policy version {number} is {state}; only a candidate can be rejected.")


class SourceNotFound(PolicyError):
    """The version learned from no such labels."""

    code = "label_source_not_found"

    def __init__(self, number: int) -> None:
        super().__init__(f"Policy version {number} did not learn from these labels; its page lists those it did.")


class SlateNotFound(PolicyError):
    """The project has no slate of this id."""

    code = "slate_not_found"

    def __init__(self) -> None:
        super().__init__("This project has no such slate; the labels of a policy version lead to theirs.")


class RankingUnknown(PolicyError):
    """The project has no ranking of this id."""

    code = "ranking_unknown"

    def __init__(self) -> None:
        super().__init__("This project has no such ranking; the labels of a policy version name theirs.")


class PolicyFilesMissing(PolicyError):
    """The version's files are not where they should be, or are not the ones that were registered."""

    code = "policy_files_missing"

    def __init__(self, number: int, problem: str) -> None:
        super().__init__(f"Policy version {number} cannot be had: {problem}.")


class RewardModelFilesRemoved(PolicyError):
    """The installation's rule removed the weights of the reward model."""

    code = "reward_model_files_removed"

    def __init__(self, number: int, problem: str) -> None:
        super().__init__(f"Reward model {number} cannot be had: {problem}.")


class PolicyStoreAway(PolicyError):
    """The artifact store, which has the version's files, does not answer now."""

    code = "policy_store_away"

    def __init__(self, number: int, problem: str) -> None:
        super().__init__(
            f"Policy version {number} cannot be had now: {problem}. It is safe there; try again when the store answers."
        )


class BadTryOut(PolicyError):
    """What two versions are to be asked has something in it that they cannot be asked."""

    code = "bad_try_out"

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{field} {problem}" for field, problem in problems.items()) + ".")
        self.problems = dict(problems)


class TryOutNotFound(PolicyError):
    """The project has no such try-out."""

    code = "try_out_not_found"

    def __init__(self) -> None:
        super().__init__("This project has no such try-out; ask the two versions again.")
