"""What a file will look like, and how a program gets the same: for people who choose its format and options."""

import json
import shlex
from dataclasses import fields, replace
from typing import Any

from sqlalchemy.orm import Session

from app.datasets.export_choices import OPTIONS, ExportChoice
from app.datasets.exports import format_of, positions_of, reader_of
from app.datasets.models import Snapshot

LABELS_LOOKED_AT = 50  # for one that gives a record

DESCRIPTIONS = {
    "kwise": "One record a ranking, with nothing lost but who people are.",
    "pairs": "One record a comparison, as TRL's RewardTrainer and DPOTrainer read it.",
    "hh": "One record a comparison: two whole transcripts, as HH-RLHF has them.",
    "stiennon": "One record a comparison, as openai/summarize-from-feedback published theirs.",
    "kto": "One record a completion, good or bad, as TRL's KTOTrainer reads it.",
    "sft": "One record for what a person wrote in one piece, as TRL's SFTTrainer reads it.",
    "prompts": "Each prompt once, in turns, as TRL's GRPOTrainer reads it.",
}


def first_record(session: Session, snapshot: Snapshot, choice: ExportChoice) -> str | None:
    """The first record of all files together, as JSON to be read by people; None where the first labels give none."""
    choice = replace(choice, shard=1, num_shards=1)
    start, stop = positions_of(snapshot, choice)
    format = format_of(snapshot, choice)
    for row in reader_of(snapshot, choice)(session, start, min(start + LABELS_LOOKED_AT, stop) - 1):
        if line := format.lines(row):
            return json.dumps(json.loads(line.split(b"\n", 1)[0]), ensure_ascii=False, indent=2)
    return None


def chosen(choice: ExportChoice) -> dict[str, Any]:
    """What the choice says beyond what is usual, but for the file's type and which of the shards it is."""
    told = {field.name: getattr(choice, field.name) for field in fields(choice) if field.name not in ("file", "shard")}
    usual = ExportChoice(format=choice.format)
    return {name: value for name, value in told.items() if name == "format" or value != getattr(usual, name)}


def options_of(choice: ExportChoice) -> dict[str, tuple[str, ...]]:
    """The options of the format with what may be chosen, but for `split`, which every format has."""
    allowed = {
        "ties": ("drop", "keep", "halve") if choice.format == "pairs" else ("drop", "halve"),
        "labels": ("given", "adjudicated"),
        "style": ("auto", "standard", "conversational"),
        "weights": ("equal", "reliability"),
        "least_quality": ("", "2", "3", "4", "5", "6", "7"),
    }
    return {name: allowed[name] for name in OPTIONS[choice.format]}


def command_line(snapshot: Snapshot, choice: ExportChoice) -> str:
    """The command that writes the same where the database is."""
    names = {"num_shards": "--shards"}
    said = [(names.get(name, f"--{name.replace('_', '-')}"), str(value)) for name, value in chosen(choice).items()]
    words = ["podium", "export", str(snapshot.id), "--to", f"{choice.format}.{choice.file}"]
    return shlex.join([*words, *(word for pair in said for word in pair)])


def python_lines(address: str, slug: str, snapshot: Snapshot, choice: ExportChoice) -> str:
    """The program that reads the same from anywhere."""
    given = {name: value for name, value in chosen(choice).items() if name not in ("format", "num_shards")}
    options = "".join(f", {name}={value!r}" for name, value in given.items())
    return "\n".join(
        [
            "import os",
            "from app.client import Podium",
            "",
            f'project = Podium({address!r}, os.environ["PODIUM_KEY"]).project({slug!r})',
            f"snapshot = project.snapshot({snapshot.name!r})",
            f"for record in snapshot.records({choice.format!r}{options}):",
            "    print(record)",
            f"rows = snapshot.to_dataset({choice.format!r}{options})  # datasets.Dataset; to_pandas gives a data frame",
        ]
    )
