"""Looks at a policy before anybody relies on it: can it be opened, how large is it, what does it need.

`python -m trainer.inspect_policy SOURCE` prints the findings as JSON; SOURCE is a folder, a Hugging Face name or
`starter`. A policy that cannot be used ends with one sentence on stderr and exit code 3.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from transformers import AutoConfig, AutoModelForCausalLM

from trainer.classifier_heads import is_encoder
from trainer.errors import StageError
from trainer.models import ModelNotFound, UnsupportedModel, load_tokenizer, model_errors, tokenizer_hash
from trainer.prompting import PLAIN_CHAT_TEMPLATE
from trainer.settings import STARTER

NEEDED_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "*.jinja"]
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
EXIT_NAMED = 3


class NoTokenizer(StageError):
    """The model has no tokenizer beside it."""

    code = "no_tokenizer"

    def __init__(self, path: str) -> None:
        super().__init__(
            f"the model at {path} has no tokenizer",
            advice="save one into the same folder (tokenizer.save_pretrained), or choose a model that brings its own",
        )


class HubUnreachable(StageError):
    """The hub does not answer, and the model is not on this machine yet."""

    code = "hub_unreachable"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the hub cannot be reached to fetch {name}, which is not on the machine that opens it",
            advice="see that this machine has network and HF_HUB_OFFLINE is not set, or give a folder that lies on it",
        )


class HubRefused(StageError):
    """The model is private or gated."""

    code = "hub_refused"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the hub does not give {name}: it is private, gated, or not there",
            advice="check the name; accept the model's terms and set HF_TOKEN where it is opened",
        )


def policy_source(source: str) -> str:
    """What the source opens with."""
    return str(STARTER / "policy") if source == "starter" else source


@dataclass(frozen=True, kw_only=True)
class PolicyFacts:
    """What can be known of a policy without reading its weights."""

    num_parameters: int
    context_tokens: int
    tokenizer_sha256: str
    architecture: str
    has_chat_template: bool  # of its own; without one prompts are put to it as plain text


def describe_policy(path: str | Path) -> PolicyFacts:
    """Look at a folder or a Hugging Face name.

    Raises ModelNotFound, UnsafeWeights, UnsupportedModel, NoTokenizer, HubUnreachable, HubRefused.
    """
    folder = fetched(path)
    if is_encoder(folder):
        raise UnsupportedModel(str(path), "it is an encoder that classifies texts; it writes none")
    with model_errors(folder):
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
        with torch.device("meta"):  # the architecture alone
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    context = getattr(config, "max_position_embeddings", None)
    if context is None:
        raise UnsupportedModel(str(path), "its configuration does not say how long its context is")
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise NoTokenizer(str(path))
    tokenizer = load_tokenizer(folder)
    return PolicyFacts(
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        context_tokens=int(context),
        tokenizer_sha256=tokenizer_hash(tokenizer),
        architecture=type(model).__name__,
        has_chat_template=tokenizer.chat_template != PLAIN_CHAT_TEMPLATE,
    )


def inspect_policy(source: str) -> dict[str, Any]:
    """{"source", "num_parameters", "context_tokens", "tokenizer_sha256", "facts"}; a hub's files are fetched.

    Raises as describe_policy does.
    """
    path = Path(policy_source(source)).expanduser()
    found = describe_policy(path if path.is_dir() else source)
    return {
        "source": str(path.resolve()) if path.is_dir() and source != "starter" else source,
        "num_parameters": found.num_parameters,
        "context_tokens": found.context_tokens,
        "tokenizer_sha256": found.tokenizer_sha256,
        "facts": {"architecture": found.architecture, "has_chat_template": found.has_chat_template},
    }


def fetched(path: str | Path) -> Path:
    """The folder, or that of a Hugging Face name. Raises ModelNotFound, HubUnreachable, HubRefused."""
    folder = Path(path)
    return folder if folder.is_dir() else _download(str(path))


def _download(name: str) -> Path:
    """A model of the hub, on this machine. Raises ModelNotFound, HubUnreachable, HubRefused."""
    if Path(name).is_absolute() or name.startswith((".", "~")):
        raise ModelNotFound(name)
    try:
        return Path(snapshot_download(name, allow_patterns=NEEDED_FILES))
    except HFValidationError as error:
        raise ModelNotFound(name) from error
    except HfHubHTTPError as error:  # it answered
        raise HubRefused(name) from error
    except (LocalEntryNotFoundError, OSError) as error:
        raise HubUnreachable(name) from error


def main() -> None:
    """Print what is found."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m trainer.inspect_policy SOURCE")
    try:
        print(json.dumps(inspect_policy(sys.argv[1])))
    except StageError as error:
        print(f"{error.message}: {error.advice}", file=sys.stderr)
        sys.exit(EXIT_NAMED)


if __name__ == "__main__":
    main()
