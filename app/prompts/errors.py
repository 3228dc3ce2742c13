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


class PromptBeingImported(PromptError):
    """A file that is being imported holds the same prompt, which is nobody else's until the import has ended."""

    code = "prompt_being_imported"

    def __init__(self) -> None:
        super().__init__(
            "A file that is being imported right now holds this very prompt, so it cannot be stored before the import"
            " ends. Nothing was lost; send it again in a minute."
        )
