"""A snapshot to take away as a file: whole, or from where a download broke off."""

from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated, get_args
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Header, Request
from fastapi.responses import PlainTextResponse, Response, StreamingResponse

from app.datasets import cards
from app.datasets.comparisons import Ties
from app.datasets.errors import BadExport
from app.datasets.export_choices import (
    QUALITIES,
    ExportChoice,
    FileType,
    Format,
    Labels,
    Part,
    Style,
    Weights,
    check_export,
    file_name_of,
    knows_reliability,
)
from app.datasets.export_examples import (
    DESCRIPTIONS,
    chosen,
    command_line,
    first_record,
    options_of,
    python_lines,
)
from app.datasets.export_files import (
    NoSuchPart,
    asks_for_part,
    digest_header,
    find_file,
    part_chunks,
    part_of,
    whole,
)
from app.datasets.export_measuring import WhenMeasured
from app.datasets.exports import tag_of
from app.datasets.layout import fits
from app.datasets.models import ExportFile, Snapshot
from app.datasets.snapshots import find_snapshot
from app.db import SessionDep
from app.pages import render
from app.people.access import Access, ResearcherAccess

router = APIRouter(prefix="/projects/{slug}/datasets/snapshots/{snapshot_id}")
api = APIRouter(prefix="/projects/{slug}/snapshots/{snapshot_id}", tags=["datasets"])

TITLES = {
    "ties": "Ties",
    "labels": "Labels",
    "style": "Style",
    "weights": "Weights",
    "least_quality": "Good is",
}
WORDS = {
    ("labels", "given"): "as given",
    ("labels", "adjudicated"): "as decided",
    ("least_quality", ""): "above the middle",
    **{("least_quality", str(quality)): f"quality {quality} or more" for quality in QUALITIES},
}
MEDIA_TYPES = {"jsonl": "application/x-ndjson", "parquet": "application/vnd.apache.parquet"}


def choice_of(
    format: Format = "kwise",
    file: FileType = "jsonl",
    ties: Ties = "drop",
    labels: Labels = "given",
    style: Style = "auto",
    weights: Weights = "equal",
    least_quality: str = "",  # what a form sends where nothing is chosen
    split: Part = "all",
    shard: int = 1,
    num_shards: int = 1,
) -> ExportChoice:
    """The choice that the address names; what it leaves out is as usual. Raises BadExport."""
    return ExportChoice(
        format=format,
        file=file,
        ties=ties,
        labels=labels,
        style=style,
        weights=weights,
        least_quality=quality_of(least_quality),
        split=split,
        shard=shard,
        num_shards=num_shards,
    )


@dataclass(frozen=True)
class Conditions:
    """What a request says of the part that it wants, and of what its sender has already (RFC 9110, 13 and 14)."""

    range: str | None
    if_range: str | None
    if_none_match: str | None


Said = Annotated[str | None, Header()]


def conditions_of(range: Said = None, if_range: Said = None, if_none_match: Said = None) -> Conditions:
    return Conditions(range, if_range, if_none_match)


Choice = Annotated[ExportChoice, Depends(choice_of)]
Wanted = Annotated[Conditions, Depends(conditions_of)]


@router.get("/files")
def files_page(
    request: Request, session: SessionDep, access: ResearcherAccess, snapshot_id: int, choice: Choice
) -> Response:
    """Choose a format and its options, and see the first record and how a program gets the same."""
    snapshot = find_snapshot(session, access.project, snapshot_id)
    check_export(snapshot, choice)
    return render(
        request,
        "datasets/export.html",
        project=access.project,
        snapshot=snapshot,
        choice=asdict(choice),
        formats=[format for format in get_args(Format) if fits(snapshot, format)],
        description=DESCRIPTIONS[choice.format],
        options=options_of(choice),
        titles=TITLES,
        words=WORDS,
        query=urlencode(chosen(choice)),
        knows_reliability=knows_reliability(snapshot),
        known=find_file(session, snapshot, choice),
        example=first_record(session, snapshot, choice),
        command=command_line(snapshot, choice),
        python=python_lines(str(request.base_url).rstrip("/"), access.project.slug, snapshot, choice),
    )


@router.get("/export")
def download(
    session: SessionDep, access: ResearcherAccess, snapshot_id: int, choice: Choice, wanted: Wanted
) -> Response:
    """The snapshot as a file: sent as it is written; a part of it; or nothing at all to whoever has it already."""
    snapshot = find_snapshot(session, access.project, snapshot_id)
    check_export(snapshot, choice)
    tag = f'"{tag_of(snapshot, choice)}"'
    if wanted.if_none_match == tag:
        return Response(status_code=304, headers={"ETag": tag})
    known = find_file(session, snapshot, choice)
    if not asks_for_part(wanted.range) or wanted.if_range not in (None, tag):
        return entire(access, snapshot, choice, known)
    answer = partial(part, access, snapshot, choice, wanted.range)
    return WhenMeasured(snapshot, choice, answer) if known is None else answer(known)


@api.get("/export")
def export(session: SessionDep, access: ResearcherAccess, snapshot_id: int, choice: Choice, wanted: Wanted) -> Response:
    """The snapshot as a file: the same bytes each time, which the ETag names; with a Range header a part of them."""
    return download(session, access, snapshot_id, choice, wanted)


@api.head("/export")
def describe(session: SessionDep, access: ResearcherAccess, snapshot_id: int, choice: Choice) -> Response:
    """The file's name and ETag; its size and SHA-256 too, once anybody has read it to its end."""
    snapshot = find_snapshot(session, access.project, snapshot_id)
    check_export(snapshot, choice)
    known = find_file(session, snapshot, choice)
    answer = Response(headers=headers_of(access, snapshot, choice, known), media_type=MEDIA_TYPES[choice.file])
    if known is not None:
        answer.headers["Content-Length"] = str(known.num_bytes)
    else:
        del answer.headers["Content-Length"]  # it is not 0
    return answer


@api.get("/card")
def card(session: SessionDep, access: ResearcherAccess, snapshot_id: int) -> Response:
    """The snapshot's dataset card, in Markdown."""
    snapshot = find_snapshot(session, access.project, snapshot_id)
    return PlainTextResponse(cards.dataset_card(access.project, snapshot), media_type="text/markdown; charset=utf-8")


def entire(access: Access, snapshot: Snapshot, choice: ExportChoice, known: ExportFile | None) -> Response:
    headers = headers_of(access, snapshot, choice, known)
    if known is not None:
        headers["Content-Length"] = str(known.num_bytes)
    return StreamingResponse(whole(snapshot, choice), media_type=MEDIA_TYPES[choice.file], headers=headers)


def part(access: Access, snapshot: Snapshot, choice: ExportChoice, asked: str | None, file: ExportFile) -> Response:
    """The part that was asked for."""
    headers = headers_of(access, snapshot, choice, file)
    try:
        found = part_of(asked, file.num_bytes)
    except NoSuchPart:
        return Response(status_code=416, headers=headers | {"Content-Range": f"bytes */{file.num_bytes}"})
    if found is None:
        return entire(access, snapshot, choice, file)
    headers["Content-Length"] = str(found.num_bytes)
    headers["Content-Range"] = f"bytes {found.first}-{found.last}/{file.num_bytes}"
    return StreamingResponse(
        part_chunks(snapshot, choice, file, found),
        status_code=206,
        media_type=MEDIA_TYPES[choice.file],
        headers=headers,
    )


def headers_of(access: Access, snapshot: Snapshot, choice: ExportChoice, file: ExportFile | None) -> dict[str, str]:
    name = file_name_of(access.project.slug, snapshot, choice)
    known = {} if file is None else {"Repr-Digest": digest_header(file)}
    return {
        "Content-Disposition": f'attachment; filename="{name}"',
        "ETag": f'"{tag_of(snapshot, choice)}"',
        "Accept-Ranges": "bytes",
        **known,
    }


def quality_of(given: str) -> int | None:
    """Raises BadExport."""
    if given and not given.isdecimal():
        raise BadExport(f"least_quality is {given!r}, which is no number.")
    return int(given) if given else None
