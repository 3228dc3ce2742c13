"""Looks at a policy before anybody relies on it: can it be opened, how large is it, what does it need.

`python -m trainer.inspect_policy SOURCE` prints the findings as JSON; SOURCE is a folder, a Hugging Face name or
`starter`. A policy that cannot be used ends with one sentence on stderr and exit code 3.
"""

import json
import sys
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


def inspect_policy(source: str) -> dict[str, Any]:
    """{"source", "num_parameters", "context_tokens", "tokenizer_sha256", "facts"}: the files are on this machine after.

    Raises ModelNotFound, UnsafeWeights, UnsupportedModel. No weight is read: the architecture alone is built.
    """
    path = policy_source(source)
    folder = Path(path).expanduser()
    if not folder.is_dir():
        folder = _download(source)
    with model_errors(folder):
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    context = getattr(config, "max_position_embeddings", None)
    if context is None:
        raise UnsupportedModel(source, "its configuration does not say how long its context is")
    own_template = (folder / "chat_template.jinja").exists() or _has_template(folder)
    return {
        "source": source if source == "starter" or not Path(path).is_dir() else str(folder.resolve()),
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "context_tokens": int(context),
        "tokenizer_sha256": tokenizer_hash(load_tokenizer(folder)),
        "facts": {
            "architecture": type(model).__name__,
            "has_chat_template": own_template,
        },
    }


def _download(name: str) -> Path:
    """A policy of the hub, on this machine. Raises ModelNotFound."""
    if Path(name).is_absolute() or name.startswith((".", "~")):
        raise ModelNotFound(name)
    try:
        return Path(snapshot_download(name, allow_patterns=NEEDED_FILES))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelNotFound(name) from error


def _has_template(folder: Path) -> bool:
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(config.get("chat_template"))


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
