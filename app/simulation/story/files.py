"""What the stages of a story leave on the disk: result folders as a recipe publishes them, small enough to copy.

A policy is the starter under another name, so that it opens; a reward model is the starter's body with a head that
scores nothing. The files are real, their manifests true; only the weights have learned nothing.
"""

import json
import math
import shutil
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet
from tokenizers import Tokenizer

from app.artifacts import MANIFEST, file_sha256, files_below, manifest_of, open_store
from app.rounds.inputs import StageInputs
from app.rounds.models import Recipe
from app.settings import Settings
from trainer.settings import STARTER

POLICY = STARTER / "policy"
ANSWERS = pyarrow.schema(
    [
        ("prompt_id", pyarrow.int64()),
        ("model", pyarrow.string()),
        ("mode", pyarrow.string()),
        ("token_ids", pyarrow.list_(pyarrow.int32())),
        ("text", pyarrow.string()),
        ("finish_reason", pyarrow.string()),
        ("logprob", pyarrow.float64()),
        ("seed", pyarrow.int64()),
        ("temperature", pyarrow.float64()),
        ("top_p", pyarrow.float64()),
        ("score", pyarrow.float64()),
    ]
)


@dataclass(frozen=True)
class Encoder:
    """The starter's tokenizer: a stored text and its tokens belong together in a story too."""

    tokenizer: Tokenizer
    eos: int

    def ids(self, text: str) -> list[int]:
        """The tokens of a completion that ended by itself."""
        return [*self.tokenizer.encode(text, add_special_tokens=False).ids, self.eos]


def starter_encoder() -> Encoder:
    config = json.loads((POLICY / "config.json").read_text(encoding="utf-8"))
    return Encoder(Tokenizer.from_file(str(POLICY / "tokenizer.json")), config["eos_token_id"])


def begin_folder(settings: Settings, inputs: StageInputs) -> Path:
    """The stage's folder with its stage.json, as the trainer makes it before a recipe starts."""
    folder = settings.artifacts / inputs.folder
    folder.mkdir(parents=True, exist_ok=True)
    stage = {
        "recipe": inputs.recipe.value,
        "config": inputs.configuration,
        "preset": inputs.preset,
        "seed": inputs.seed,
        "models": inputs.models,
        "parents": inputs.parents,
        "snapshot_sha256": inputs.snapshot_sha256,
    }
    (folder / "stage.json").write_text(json.dumps(stage, indent=1), encoding="utf-8")
    return folder


def write_metrics(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """metrics.jsonl, one object a step."""
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def publish(
    settings: Settings,
    folder: Path,
    recipe: Recipe,
    figures: Mapping[str, Any],
    answers: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Write the stage's result, its manifest last, and send it to the store if there is one; the manifest's SHA-256."""
    result = folder / "result"
    result.mkdir(parents=True, exist_ok=True)
    if recipe is Recipe.EVALUATE:
        parquet.write_table(pyarrow.Table.from_pylist(list(answers), schema=ANSWERS), result / "completions.parquet")
    elif recipe is Recipe.REWARD:
        write_reward_model(result)
    else:
        for name in ("config.json", "generation_config.json", "model.safetensors"):
            shutil.copyfile(POLICY / name, result / name)
        copy_tokenizer(result)
    (result / "result.json").write_text(json.dumps({"figures": figures, "stopped": ""}, indent=1), encoding="utf-8")
    files = files_below(result, but=(MANIFEST,))
    (result / MANIFEST).write_bytes(manifest_of(files))
    if store := open_store(settings):
        name = result.relative_to(settings.artifacts).as_posix()
        store.send(name, files, manifest=(result / MANIFEST).read_bytes())
    return file_sha256(result / MANIFEST)


def copy_tokenizer(result: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(POLICY / name, result / name)


def write_reward_model(result: Path) -> None:
    """The starter's body and a head of zeros, as AutoModelForSequenceClassification(num_labels=1) reads them."""
    config = json.loads((POLICY / "config.json").read_text(encoding="utf-8"))
    config |= {"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "LABEL_0"}}
    config |= {"label2id": {"LABEL_0": 0}, "num_labels": 1}
    (result / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    copy_tokenizer(result)
    add_tensor(POLICY / "model.safetensors", result / "model.safetensors", "score.weight", (1, config["hidden_size"]))


def add_tensor(source: Path, target: Path, name: str, shape: tuple[int, ...]) -> None:
    """Copy a safetensors file with one more tensor, of zeros in float16. The format is a header and then the bytes."""
    content = source.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    size = 2 * math.prod(shape)
    header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [len(data), len(data) + size]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data begins at a multiple of 8
    target.write_bytes(struct.pack("<Q", len(text)) + text + data + bytes(size))
