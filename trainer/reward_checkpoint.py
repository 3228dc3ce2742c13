"""Looks at a reward model from anywhere before anybody relies on it: can it be opened, and does it give a score.

Reads configurations and the names in the weights' files, no weights. Nothing that comes with a model is run.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

from trainer.errors import StageError
from trainer.inspect_policy import NEEDED_FILES, fetched
from trainer.models import UnsupportedModel, load_tokenizer, model_errors, tokenizer_hash
from trainer.round_folder import file_sha256

INDEX = "model.safetensors.index.json"


class NoScore(StageError):
    """The model does not give one score for a text."""

    code = "no_score"

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(
            f"the model at {path} is no reward model: {reason}",
            advice="give a sequence classifier with one label (AutoModelForSequenceClassification, num_labels=1)",
        )


@dataclass(frozen=True, kw_only=True)
class RewardModelFacts:
    """What a report needs to know of a reward model.

    path: where its files lie on this machine.  sha256: of the names and contents of all that it is opened from; a
    name or a folder may hold another model tomorrow.
    """

    path: str
    tokenizer_sha256: str
    sha256: str


def describe_reward_model(source: str) -> RewardModelFacts:
    """Look at a folder or a Hugging Face name, whose files are fetched.

    Raises ModelNotFound, UnsafeWeights, UnsupportedModel, NoScore, HubUnreachable, HubRefused.
    """
    folder = fetched(source)
    with model_errors(folder):
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise UnsupportedModel(source, f"{config.model_type} has no sequence classifier in Transformers")
    weights = names_of_weights(folder, source)
    if "score.weight" not in weights:
        reason = "its weights have no head that gives a score (score.weight)"
        raise NoScore(source, f"{reason}; it looks like a language model" if weights else reason)
    if weights["score.weight"] != 1:
        raise NoScore(source, f"it has {weights['score.weight']} labels and not one")
    return RewardModelFacts(
        path=str(folder),
        tokenizer_sha256=tokenizer_hash(load_tokenizer(folder)),
        sha256=sha256_of_model(folder),
    )


def sha256_of_model(folder: Path) -> str:
    """Of the names and contents of the files that Transformers opens a model and its tokenizer from."""
    opened = sorted({path for pattern in NEEDED_FILES for path in folder.rglob(pattern)})
    lines = (f"{path.relative_to(folder).as_posix()} {file_sha256(path)}\n" for path in opened)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def names_of_weights(folder: Path, source: str) -> dict[str, int]:
    """Every weight's name and its first dimension; for a model in several files the head's dimension alone is read.

    Raises UnsupportedModel for damaged files.
    """
    try:
        if (folder / INDEX).is_file():
            placed = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
            head = dimensions(folder / placed["score.weight"]) if "score.weight" in placed else {}
            return {name: head.get(name, 0) for name in placed}
        found: dict[str, int] = {}
        for file in sorted(folder.glob("*.safetensors")):
            found |= dimensions(file)
        return found
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise UnsupportedModel(source, f"its weights are damaged ({error})") from error


def dimensions(file: Path) -> dict[str, int]:
    with safe_open(str(file), framework="pt") as weights:
        return {name: (weights.get_slice(name).get_shape() or [0])[0] for name in weights.keys()}  # noqa: SIM118
