"""Looks at a reward model from anywhere before anybody relies on it: can it be opened, and does it give a score.

Reads configurations and the names in the weights' files, no weights. Nothing that comes with a model is run.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
)

from trainer.classifier_heads import OF_DECODERS, DamagedWeights, head_in
from trainer.encoders import load_pair_tokenizer
from trainer.errors import StageError
from trainer.inspect_policy import NEEDED_FILES, fetched
from trainer.models import UnsupportedModel, load_tokenizer, model_errors, tokenizer_hash
from trainer.round_folder import MANIFEST, file_sha256

OF_THE_STAGE = (MANIFEST, "result.json")  # about the model, and no part of it: a redaction changes the manifest


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
    name or a folder may hold another model tomorrow.  reads_pairs: it is an encoder (trainer.encoders).
    """

    path: str
    tokenizer_sha256: str
    sha256: str
    reads_pairs: bool


def describe_reward_model(source: str) -> RewardModelFacts:
    """Look at a folder or a Hugging Face name, whose files are fetched.

    Raises ModelNotFound, UnsafeWeights, UnsupportedModel, NoScore, HubUnreachable, HubRefused.
    """
    folder = fetched(source)
    with model_errors(folder):
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise UnsupportedModel(source, f"{config.model_type} has no sequence classifier in Transformers")
    try:
        head = head_in(folder)
    except DamagedWeights as error:
        raise UnsupportedModel(source, f"its weights are damaged ({error})") from error
    if head is None:
        looks = "; it looks like a language model" if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING else ""
        raise NoScore(source, f"its weights have no head that gives a score (score or classifier){looks}")
    name, num_labels = head
    if num_labels != 1:
        raise NoScore(source, f"it has {num_labels} labels and not one")
    reads_pairs = name != OF_DECODERS
    if reads_pairs and config.is_encoder_decoder:
        raise UnsupportedModel(
            source, f"{config.model_type} is an encoder with a decoder, of which none is scored here"
        )
    return RewardModelFacts(
        path=str(folder),
        tokenizer_sha256=tokenizer_hash(load_pair_tokenizer(folder) if reads_pairs else load_tokenizer(folder)),
        sha256=sha256_of_model(folder),
        reads_pairs=reads_pairs,
    )


def sha256_of_model(folder: Path) -> str:
    """Of the names and contents of the files that Transformers opens a model and its tokenizer from."""
    beside = {folder / name for name in OF_THE_STAGE}
    opened = sorted({path for pattern in NEEDED_FILES for path in folder.rglob(pattern)} - beside)
    lines = (f"{path.relative_to(folder).as_posix()} {file_sha256(path)}\n" for path in opened)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
