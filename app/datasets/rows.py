"""One ranking as datasets hold it, with all that was known of it when its snapshot was frozen. Pure values."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from app.labeling.models import AskedBy, SlateKind, Strength
from app.labeling.task_models import WritingTask
from app.prompts.models import PromptKind, Split

# Llama 2's margins (arXiv:2307.09288, table 27, "small"), as the view `comparison` has them.
MARGINS = {Strength.SIGNIFICANTLY: 1.0, Strength.BETTER: 2 / 3, Strength.SLIGHTLY: 1 / 3, Strength.NEGLIGIBLY: 0.0}


class SafetyBin(StrEnum):
    """What a comparison says of safety (Llama 2, arXiv:2307.09288, section 3.2.1)."""

    BETTER_IS_SAFE = "better_is_safe"  # and the other one is not: 18 % of Llama 2's
    BOTH_ARE_SAFE = "both_are_safe"  # 47 %
    BOTH_ARE_UNSAFE = "both_are_unsafe"  # 35 %


def safety_bin(*, better_is_safe: bool, worse_is_safe: bool) -> SafetyBin | None:
    """The bin of a comparison; None where the worse one alone is safe: Llama 2 left those out."""
    if better_is_safe:
        return SafetyBin.BOTH_ARE_SAFE if worse_is_safe else SafetyBin.BETTER_IS_SAFE
    return None if worse_is_safe else SafetyBin.BOTH_ARE_UNSAFE


@dataclass(frozen=True, slots=True)
class CompletionRow:
    """One completion of a ranked slate."""

    id: str  # a UUID
    text: str
    token_ids: list[int] | None  # EOS included when it stopped
    finish_reason: str | None  # "stop" or "length"
    tokenizer_sha256: str | None
    policy_number: int | None
    source: str
    seed: int | None
    temperature: float | None
    top_p: float | None
    logprob: float | None  # nats
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Decision:
    """What a researcher decided on a slate that its labelers ranked differently."""

    ranks: list[int]  # in the completions' order
    num_rankings: int  # judgements that it was made on
    decided_at: datetime  # UTC


@dataclass(frozen=True, slots=True)
class RankingRow:
    """One ranking; completions, ranks, qualities, flags and safety share their order."""

    ranking_id: UUID
    slate_id: UUID
    prompt_id: int
    group_key: str
    split: Split
    kind: SlateKind
    messages: list[dict[str, Any]]
    completions: list[CompletionRow]
    ranks: list[int]  # 1 is best, equal ranks are ties
    qualities: list[int | None]  # 1 to 7
    flags: list[list[str]]
    are_safe: list[bool | None]  # asked of two completions, where the project does
    order_shown: list[int]  # positions among the completions
    pseudonym: str
    is_pick: bool  # one was picked, the others were not compared with each other
    strength: Strength | None
    weight: float
    active_s: float | None
    submitted_at: datetime  # UTC
    decision: Decision | None  # on its slate, by the time of the freeze
    is_decision: bool = False  # it stands for the decision, and for no labeler's ranking
    is_first_of_decided: bool = False  # of its slate's rankings, where a researcher decided the slate
    agreement: float | None = None  # of those who ranked its slate; None: one did
    reliability: float | None = None  # of the labeler; None: nobody in the snapshot shares a slate
    reliability_weight: float = 1.0  # what the labeler's rankings weigh where reliability weighs
    asked_by: AskedBy | None = None  # why the slate was chosen to be shown; None: nothing was chosen
    disagreement: float | None = None  # of the reward models that chose

    @property
    def num_comparisons(self) -> int:
        """Pairs of which one is better; ties imply none."""
        return sum(better < worse for better in self.ranks for worse in self.ranks)

    def is_tie(self, one: int, other: int) -> bool:
        """Whether the two were judged to be equally good; what a pick leaves uncompared was not judged at all."""
        return self.ranks[one] == self.ranks[other] and not self.is_pick

    @property
    def margin(self) -> float | None:
        """How much the better of two is better, 0 to 1; None where no strength was asked."""
        return None if self.strength is None else MARGINS[self.strength]

    @property
    def safety_bin(self) -> SafetyBin | None:
        """Llama 2's bin of a pair that people judged for safety too."""
        if len(self.ranks) != 2 or self.ranks[0] == self.ranks[1] or None in self.are_safe:
            return None
        better = self.ranks.index(min(self.ranks))
        return safety_bin(better_is_safe=self.are_safe[better] is True, worse_is_safe=self.are_safe[1 - better] is True)

    @property
    def places(self) -> list[tuple[int, int]]:
        """(rank, position) from the best to the worst."""
        return sorted(zip(self.ranks, range(len(self.ranks)), strict=True))

    @property
    def is_conversational(self) -> bool:
        """Whether the prompt is more than one question: turns, or a system text."""
        return len(self.messages) > 1


@dataclass(frozen=True, slots=True)
class DemonstrationRow:
    """What a person wrote in one piece: an answer, a prompt with its answer, an edited reply, a whole conversation."""

    demonstration_id: UUID
    prompt_kind: PromptKind
    group_key: str
    split: Split
    messages: list[dict[str, Any]]  # the prompt's turns
    text: str
    task: WritingTask | None  # None: it was imported
    pseudonym: str | None  # None: the file that it came from does not say
    used_suggestion: bool  # of the policy
    use_case: str | None
    active_s: float | None
    created_at: datetime  # UTC

    @property
    def written_turns(self) -> list[int]:
        """Which turns a person wrote as the assistant: all of a whole conversation's, else the last one alone."""
        if self.task is not WritingTask.BOTH_SIDES:
            return [len(self.messages)]
        roles = [message["role"] for message in self.messages] + ["assistant"]
        return [place for place, role in enumerate(roles) if role == "assistant"]
