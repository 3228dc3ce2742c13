"""How a piece of writing looks so far: its lengths as the policy reads them, and its text as others will see it."""

from dataclasses import dataclass

from app.labeling.demonstration_content import WritingContent, filled, prompt_of
from app.labeling.task_errors import IncompleteWriting
from app.labeling.task_models import WritingTask
from app.labeling.token_counts import CountTokens
from app.projects.models import Project
from app.prompts.messages import Messages


@dataclass(frozen=True)
class Look:
    """Lengths are in tokens where the policy's tokenizer is at hand, else in words, and `unit` says which.

    messages: what was written, the prompt's turns and the answer; of a given prompt, the answer alone.
    prompt_limit: tokens; None where nothing is counted in tokens.
    """

    unit: str
    num_prompt: int
    prompt_limit: int | None
    num_answer: int
    messages: Messages

    @property
    def is_too_long(self) -> bool:
        return self.prompt_limit is not None and self.num_prompt > self.prompt_limit


def look_at(
    project: Project,
    task: WritingTask,
    content: WritingContent,
    given: Messages | None,
    count_tokens: CountTokens | None,
) -> Look:
    """The piece as it stands, finished or not. given: the prompt of an answer."""
    count = count_tokens or (lambda text: len(text.split()))
    written = _prompt_so_far(task, content)
    answer = _answer_so_far(task, content)
    return Look(
        unit="words" if count_tokens is None else "tokens",
        num_prompt=sum(count(message["content"]) for message in (written if given is None else given)),
        prompt_limit=None if count_tokens is None else project.max_prompt_tokens,
        num_answer=count(answer),
        messages=[*written, *([{"role": "assistant", "content": answer}] if answer else [])],
    )


def _prompt_so_far(task: WritingTask, content: WritingContent) -> Messages:
    if task is WritingTask.ANSWER:
        return []
    try:
        return prompt_of(task, content)
    except IncompleteWriting:
        return []


def _answer_so_far(task: WritingTask, content: WritingContent) -> str:
    if task is WritingTask.FEW_SHOT:
        pairs = filled(content.pairs)
        return pairs[-1].response.strip() if pairs else ""
    if task is WritingTask.BOTH_SIDES:
        turns = [turn.strip() for turn in content.turns]
        while turns and not turns[-1]:
            turns.pop()
        return turns[-1] if turns and len(turns) % 2 == 0 else ""
    return content.answer.strip()
