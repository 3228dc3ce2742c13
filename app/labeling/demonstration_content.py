"""What a piece of writing becomes: prompts and the completions people wrote for them. Knows nothing of the database."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic import ConfigDict, Field, ValidationError

from app.labeling.models import Strength
from app.labeling.schemas import Form, Rank, Seconds, Words
from app.labeling.task_errors import IncompleteWriting
from app.labeling.task_models import WritingTask
from app.prompts.messages import Messages
from app.prompts.models import PromptKind

MOST_PARTS = 40  # pairs of a few-shot prompt, or turns of a conversation
LEAST_PAIRS = 2  # one shows how, the last one is what the policy learns to answer
KINDS = {
    WritingTask.PLAIN: PromptKind.PLAIN,
    WritingTask.FEW_SHOT: PromptKind.FEW_SHOT,
    WritingTask.USER_BASED: PromptKind.USER_BASED,
    WritingTask.BOTH_SIDES: PromptKind.CONVERSATION,
}


class Pair(Form):
    """One example of a few-shot prompt."""

    query: Words = ""
    response: Words = ""

    @property
    def is_empty(self) -> bool:
        return not self.query.strip() and not self.response.strip()


class WritingContent(Form):
    """What was written so far; which of it counts depends on the task."""

    prompt: Words = ""
    answer: Words = ""
    instruction: Words = ""
    pairs: list[Pair] = Field(default_factory=list, max_length=MOST_PARTS)
    use_case: Words = ""
    # The user's, the assistant's, the user's, …
    turns: list[Words] = Field(default_factory=list, max_length=MOST_PARTS)
    suggestion_id: UUID | None = None  # of the policy's suggestion that was put into the answer
    active_s: Seconds = 0.0
    # Of a conversation's open turn: what was said of the replies so far; `answer` is the chosen one, edited.
    ranks: dict[UUID, Rank] = Field(default_factory=dict)
    chosen: UUID | None = None
    strength: Strength | None = None


class WritingDraft(WritingContent):
    """The same before it is submitted: what it does not know comes from a page of another version, and is dropped."""

    model_config = ConfigDict(extra="ignore")


def known_content(kept: Mapping[str, Any]) -> WritingDraft:
    """A stored draft as far as this version of the page knows it: what does not fit is left out, never the rest."""
    try:
        return WritingDraft.model_validate(kept)
    except ValidationError as error:
        unfit = {problem["loc"][0] for problem in error.errors()}
        return WritingDraft.model_validate({name: value for name, value in kept.items() if name not in unfit})


@dataclass(frozen=True)
class Written:
    """One prompt and what a person answered."""

    messages: Messages
    text: str


def prompt_of(task: WritingTask, content: WritingContent) -> Messages:
    """The prompt as far as it is written: what a suggestion would answer. Raises IncompleteWriting."""
    if task is WritingTask.FEW_SHOT:
        return user(few_shot_prompt(content.instruction, filled(content.pairs)))
    if task is WritingTask.BOTH_SIDES:
        turns = written_turns(content)
        return conversation(turns if len(turns) % 2 else turns[:-1])
    if task is WritingTask.USER_BASED:
        needed(content.use_case, "Choose the use case first")
    return user(needed(content.prompt, "Write the prompt first"))


def demonstrations_of(task: WritingTask, content: WritingContent) -> list[Written]:
    """Every prompt with its answer, the last one last: a conversation has one for each of the assistant's turns.

    Raises IncompleteWriting, saying what is missing.
    """
    if task is WritingTask.BOTH_SIDES:
        turns = written_turns(content)
        if len(turns) % 2:
            raise IncompleteWriting("The conversation must end with the assistant's turn")
        return [Written(conversation(turns[:end]), turns[end]) for end in range(1, len(turns), 2)]
    if task is WritingTask.FEW_SHOT:
        pairs = filled(content.pairs)
        if len(pairs) < LEAST_PAIRS:
            raise IncompleteWriting(f"Write at least {LEAST_PAIRS} pairs of query and response")
        if not all(pair.response.strip() for pair in pairs):
            raise IncompleteWriting("Every query needs its response")
        return [Written(prompt_of(task, content), pairs[-1].response.strip())]
    return [Written(prompt_of(task, content), answer_of(content))]


def answer_of(content: WritingContent) -> str:
    return needed(content.answer, "Write the answer first")


def few_shot_prompt(instruction: str, pairs: list[Pair]) -> str:
    """The instruction, the pairs that show how, and the last query (InstructGPT, arXiv:2203.02155, A.1)."""
    instruction = needed(instruction, "Write the instruction first")
    if not pairs or not all(pair.query.strip() for pair in pairs):
        raise IncompleteWriting("Write at least one query, and a query for every response")
    shots = [f"Query: {pair.query.strip()}\nResponse: {pair.response.strip()}" for pair in pairs[:-1]]
    return "\n\n".join([instruction, *shots, f"Query: {pairs[-1].query.strip()}\nResponse:"])


def filled(pairs: list[Pair]) -> list[Pair]:
    return [pair for pair in pairs if not pair.is_empty]


def written_turns(content: WritingContent) -> list[str]:
    """The turns up to the last one that says something. Raises IncompleteWriting for a gap."""
    turns = [turn.strip() for turn in content.turns]
    while turns and not turns[-1]:
        turns.pop()
    if not turns:
        raise IncompleteWriting("Write the user's first turn")
    if not all(turns):
        raise IncompleteWriting("A turn in the middle of the conversation is empty")
    return turns


def conversation(turns: list[str]) -> Messages:
    return [{"role": ("user", "assistant")[n % 2], "content": turn} for n, turn in enumerate(turns)]


def user(text: str) -> Messages:
    return [{"role": "user", "content": text}]


def needed(text: str, otherwise: str) -> str:
    if not text.strip():
        raise IncompleteWriting(otherwise)
    return text.strip()
