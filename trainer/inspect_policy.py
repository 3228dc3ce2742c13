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

from trainer.errors import StageError
from trainer.models import ModelNotFound, UnsupportedModel, load_tokenizer, model_errors, tokenizer_hash
from trainer.settings import STARTER

NEEDED_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "*.jinja"]
EXIT_NAMED = 3


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


def describe_policy(path: str | Path) -> PolicyFacts:
    """Look at a folder or a Hugging Face name. Raises ModelNotFound, UnsafeWeights, UnsupportedModel."""
    folder = Path(path)
    if not folder.is_dir():
        folder = _download(str(path))
    with model_errors(folder):
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
        with torch.device("meta"):  # the architecture alone
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    context = getattr(config, "max_position_embeddings", None)
    if context is None:
        raise UnsupportedModel(str(path), "its configuration does not say how long its context is")
    return PolicyFacts(
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        context_tokens=int(context),
        tokenizer_sha256=tokenizer_hash(load_tokenizer(folder)),
        architecture=type(model).__name__,
    )


def inspect_policy(source: str) -> dict[str, Any]:
    """{"source", "num_parameters", "context_tokens", "tokenizer_sha256", "facts"}; a hub's files are fetched.

    Raises ModelNotFound, UnsafeWeights, UnsupportedModel.
    """
    path = Path(policy_source(source)).expanduser()
    found = describe_policy(path if path.is_dir() else source)
    return {
        "source": str(path.resolve()) if path.is_dir() and source != "starter" else source,
        "num_parameters": found.num_parameters,
        "context_tokens": found.context_tokens,
        "tokenizer_sha256": found.tokenizer_sha256,
        "facts": {"architecture": found.architecture},
    }


def _download(name: str) -> Path:
    """A policy of the hub, on this machine. Raises ModelNotFound."""
    if Path(name).is_absolute() or name.startswith((".", "~")):
        raise ModelNotFound(name)
    try:
        return Path(snapshot_download(name, allow_patterns=NEEDED_FILES))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelNotFound(name) from error


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
