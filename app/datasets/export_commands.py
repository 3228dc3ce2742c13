"""`podium export`: a snapshot as files, without the browser."""

import os
from collections.abc import Iterable
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Annotated, Any

import typer
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.client import Podium, PodiumClientError
from app.datasets.errors import BadExport, SnapshotNotFound
from app.datasets.export_choices import OF_DEMONSTRATIONS, ExportChoice, num_labels_of, shard_suffix
from app.datasets.exports import export_chunks
from app.datasets.layout import write_layout
from app.datasets.models import Snapshot
from app.projects.models import Project
from app.terminal import CannotStart, open_session, say


def register(cli: typer.Typer) -> None:
    """Add the command."""
    cli.command("export")(export)


def export(
    snapshot: Annotated[str, typer.Argument(help="The snapshot's number, or with --project its name.")],
    to: Annotated[
        Path | None, typer.Option("--to", help="The file to write; .parquet writes Parquet, else JSON lines.")
    ] = None,
    layout: Annotated[
        Path | None, typer.Option("--layout", help="A new folder that datasets.load_dataset opens, in place of --to.")
    ] = None,
    format: Annotated[
        str, typer.Option(help="kwise, pairs, hh, stiennon, kto, sft or prompts; docs/exports.md tells them apart.")
    ] = "kwise",
    project: Annotated[str | None, typer.Option("--project", "-p", help="The project's short name.")] = None,
    ties: Annotated[str, typer.Option(help="drop, halve, or in pairs keep.")] = "drop",
    labels: Annotated[
        str, typer.Option(help="given, or adjudicated: a researcher's decision where there is one.")
    ] = "given",
    style: Annotated[str, typer.Option(help="auto, standard or conversational, in pairs and kto.")] = "auto",
    weights: Annotated[str, typer.Option(help="equal, or reliability: of the labeler, as at the freeze.")] = "equal",
    least_quality: Annotated[
        int | None, typer.Option(help="From which quality on kto calls a completion good; else above the middle.")
    ] = None,
    split: Annotated[str, typer.Option(help="all, train, validation or test.")] = "all",
    shards: Annotated[int, typer.Option(help="How many files: --to a.jsonl gives a-00000-of-00003.jsonl.")] = 1,
    shard_size: Annotated[
        int | None, typer.Option(help="As many files as hold at most so many rankings or demonstrations each.")
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(help="Download from the Podium at this address, with the key in PODIUM_KEY; needs --project."),
    ] = None,
) -> None:
    """Write a snapshot to a file, to several, or to a folder to publish; each file whole or not at all."""
    if (to is None) == (layout is None):
        raise CannotStart("say either --to FILE or --layout FOLDER")
    if server is not None and (layout is not None or shard_size is not None):
        raise CannotStart("a download from a server takes --to and --shards, no --layout and no --shard-size")
    if layout is not None:
        publish(snapshot, project, layout)
        return
    assert to is not None
    choice = choice_of(
        format=format,
        file="parquet" if to.suffix == ".parquet" else "jsonl",
        ties=ties,
        labels=labels,
        style=style,
        weights=weights,
        least_quality=least_quality,
        split=split,
        num_shards=shards,
    )
    if server is not None:
        download(server, snapshot, project, to, choice)
        return
    with open_session() as session:
        found = find(session, snapshot, project)
        for part in parts_of(found, choice, shard_size):
            path = to.with_name(f"{to.stem}{shard_suffix(part)}{to.suffix}")
            say(f"{path}: {described(found, part)}, {write_whole(path, export_chunks(found, part)):,} bytes")


def publish(snapshot: str, slug: str | None, folder: Path) -> None:
    with open_session() as session:
        found = find(session, snapshot, slug)
        project = session.get_one(Project, found.project_id)
        try:
            for file in write_layout(folder, project, found, write=write_whole):
                say(f"{folder / file.name}: {file.num_bytes:,} bytes")
        except OSError as error:
            raise CannotStart(f"{folder} cannot be made ({error.strerror}): choose another place") from error
    say(f'Open it: datasets.load_dataset("{folder}")')


def download(server: str, snapshot: str, slug: str | None, to: Path, choice: ExportChoice) -> None:
    """From another machine; what a broken download left is gone on with, and held against its SHA-256."""
    key = os.environ.get("PODIUM_KEY")
    if key is None or slug is None:
        raise CannotStart("a download needs --project and a key in PODIUM_KEY; keys are made under Account and keys")
    try:
        found = Podium(server, key).project(slug).snapshot(int(snapshot) if snapshot.isdecimal() else snapshot)
        for shard in range(1, choice.num_shards + 1):
            part = choice_of(**vars(choice) | {"shard": shard})
            path = to.with_name(f"{to.stem}{shard_suffix(part)}{to.suffix}")
            found.download(path, **{name: value for name, value in vars(part).items() if name != "file"})
            say(f"{path}: {path.stat().st_size:,} bytes of “{found.name}” as {choice.format}, SHA-256 as sent")
    except PodiumClientError as error:
        raise CannotStart(str(error)) from error
    except OSError as error:
        raise CannotStart(
            f"{to} cannot be written ({error.strerror}): free space and ask again; the download goes on where it was"
        ) from error


def parts_of(snapshot: Snapshot, choice: ExportChoice, shard_size: int | None) -> list[ExportChoice]:
    """The files that the choice stands for. Raises CannotStart."""
    num = choice.num_shards
    if shard_size is not None:
        if shard_size < 1 or num != 1:
            raise CannotStart("say either --shards or a --shard-size of at least 1")
        num = max(1, -(-num_labels_of(snapshot, choice) // shard_size))
    return [choice_of(**vars(choice) | {"shard": shard, "num_shards": num}) for shard in range(1, num + 1)]


def described(snapshot: Snapshot, choice: ExportChoice) -> str:
    written = choice.format in OF_DEMONSTRATIONS
    what = f"{snapshot.num_demonstrations:,} demonstrations" if written else f"{snapshot.num_rankings:,} rankings"
    part = choice.split if choice.split != "all" else "a part" if choice.num_shards > 1 else None
    said = f"{'' if part is None else f'{part} of '}{what} of “{snapshot.name}” as {choice.format}"
    left_out = snapshot.counts.get("not_in_hh", 0) if choice.format == "hh" else 0
    if left_out:
        said += (
            f" ({left_out:,} of {snapshot.num_comparisons:,} comparisons left out: a speaker's mark is in their texts)"
        )
    return said


def choice_of(**given: Any) -> ExportChoice:
    try:
        return ExportChoice(**given)
    except BadExport as error:
        raise CannotStart(str(error)) from error


def find(session: Session, snapshot: str, slug: str | None) -> Snapshot:
    query = select(Snapshot)
    if slug is not None:
        query = query.join(Project, Project.id == Snapshot.project_id).where(Project.slug == slug)
    by_name = slug is not None and not snapshot.isdecimal()
    if not (by_name or snapshot.isdecimal()):
        raise CannotStart(f"“{snapshot}” is no snapshot's number; to name one, say its --project too")
    query = query.where(Snapshot.name == snapshot if by_name else Snapshot.id == int(snapshot))
    found = session.scalars(query).one_or_none()
    if found is None:
        raise SnapshotNotFound(snapshot)
    return found


def write_whole(path: Path, chunks: Iterable[bytes]) -> int:
    """Write the file beside its place and move it there when it is complete; returns its size in bytes.

    Raises CannotStart, leaving what was there before, when it cannot be written.
    """
    beside: Path | None = None
    try:
        with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            beside = Path(file.name)
            size = sum(file.write(chunk) for chunk in chunks)
            file.flush()
            os.fsync(file.fileno())
        beside.chmod(0o644)  # temporary files are for their owner alone
        beside.replace(path)
        return size
    except OSError as error:
        raise CannotStart(
            f"{path} cannot be written ({error.strerror}): nothing was left there; free space or choose another place"
        ) from error
    finally:
        if beside is not None:
            beside.unlink(missing_ok=True)
