"""What gives a classifier's score, read from the names in its weights' files: no weights are read, no model is built.

A decoder's head is called `score`. An encoder's is called `classifier`, and reads a prompt and a completion as a pair.
"""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

INDEX = "model.safetensors.index.json"
OF_DECODERS = "score.weight"
OF_ENCODERS = ("classifier.weight", "classifier.out_proj.weight")  # BERT, DeBERTa, ModernBERT …; RoBERTa, ELECTRA …


class DamagedWeights(Exception):
    """A file of weights cannot be read; the message is the reason."""


def is_encoder(folder: Path) -> bool:
    """Whether a folder holds a classifier of pairs of texts; of damaged weights, whoever opens them says more."""
    try:
        names = weights_in(folder)
    except DamagedWeights:
        return False
    return OF_DECODERS not in names and any(name in names for name in OF_ENCODERS)


def head_in(folder: Path) -> tuple[str, int] | None:
    """The head's name and the number of its labels; None where there is none. Raises DamagedWeights."""
    names = weights_in(folder)
    return next(((name, names[name]) for name in (OF_DECODERS, *OF_ENCODERS) if name in names), None)


def weights_in(folder: Path) -> dict[str, int]:
    """Every weight's name and its first dimension; for a model in several files the heads' dimensions alone are read.

    Raises DamagedWeights.
    """
    try:
        if (folder / INDEX).is_file():
            placed = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
            files = {folder / placed[name] for name in (OF_DECODERS, *OF_ENCODERS) if name in placed}
            heads = {name: size for file in files for name, size in _dimensions(file).items()}
            return {name: heads.get(name, 0) for name in placed}
        found: dict[str, int] = {}
        for file in sorted(folder.glob("*.safetensors")):
            found |= _dimensions(file)
        return found
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise DamagedWeights(str(error)) from error


def _dimensions(file: Path) -> dict[str, int]:
    with safe_open(str(file), framework="pt") as weights:
        return {name: (weights.get_slice(name).get_shape() or [0])[0] for name in weights.keys()}  # noqa: SIM118
