"""What can be wrong with a prompt."""

from app.errors import PodiumError


class PromptError(PodiumError):
    """Something about prompts was refused."""


class BadPrompt(PromptError):
    """The messages are no prompt that a policy could answer."""

    code = "bad_prompt"


class PromptNotFound(PromptError):
    """The project has no such prompt."""

    code = "prompt_not_found"
