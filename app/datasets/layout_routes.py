"""The folder to publish: its files with their hashes, and all of it as a zip file."""

from collections.abc import Callable, Sequence
from functools import partial
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from app.datasets.export_choices import ExportChoice, stem_of
from app.datasets.export_examples import chosen
from app.datasets.export_measuring import measured
from app.datasets.layout_archive import Listed, files_of, unread
from app.datasets.models import Snapshot
from app.datasets.schemas import LayoutFileOut
from app.datasets.snapshots import find_snapshot
from app.db import SessionDep, SessionFactory
from app.pages import render
from app.people.access import ResearcherAccess
from app.projects.models import Project
from app.zip_answers import Said, entity_tag, start_of, zip_answer

router = APIRouter(prefix="/projects/{slug}/datasets/snapshots/{snapshot_id}/layout")
api = APIRouter(prefix="/projects/{slug}/snapshots/{snapshot_id}/layout", tags=["datasets"])


class WhenAllMeasured(Response):
    """What `answer` makes of the folder, once every file of it has been read to its end."""

    def __init__(self, snapshot: Snapshot, choices: Sequence[ExportChoice], answer: Callable[[], Response]) -> None:
        super().__init__()
        self.snapshot, self.choices, self.answer = snapshot, choices, answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for choice in self.choices:
            await measured(self.snapshot, choice)
        response = await run_in_threadpool(self.answer)
        await response(scope, receive, send)


@router.get("")
def layout_page(request: Request, session: SessionDep, access: ResearcherAccess, snapshot_id: int) -> Response:
    """Every file of the folder, to be taken alone or all together."""
    snapshot = find_snapshot(session, access.project, snapshot_id)
    files = files_of(session, access.project, snapshot)
    return render(
        request,
        "datasets/layout.html",
        project=access.project,
        snapshot=snapshot,
        files=[(each, query_of(each)) for each in files],
        num_unread=len(unread(files)),
    )


@router.get("/export")
def download(
    session: SessionDep, access: ResearcherAccess, snapshot_id: int, range: Said = None, if_range: Said = None
) -> Response:
    """The folder as a zip file, sent as it is written; the rest of it, to whoever has its beginning."""
    project, snapshot = access.project, find_snapshot(session, access.project, snapshot_id)
    files = files_of(session, project, snapshot)
    missing = unread(files)
    tag = entity_tag(stem_of(project.slug, snapshot), [each.file for each in files])
    if missing and start_of(range) and if_range in (None, tag):
        return WhenAllMeasured(snapshot, missing, partial(archive_again, project, snapshot, range, if_range))
    return archive(project, snapshot, files, range, if_range)


@api.get("")
def layout(session: SessionDep, access: ResearcherAccess, snapshot_id: int) -> list[LayoutFileOut]:
    """Every file of the folder to publish; size and hash are known once somebody has read it to its end."""
    snapshot = find_snapshot(session, access.project, snapshot_id)
    return [
        LayoutFileOut(name=each.file.name, num_bytes=each.file.size, sha256=each.sha256, export=query_of(each))
        for each in files_of(session, access.project, snapshot)
    ]


@api.get("/export")
def download_out(
    session: SessionDep, access: ResearcherAccess, snapshot_id: int, range: Said = None, if_range: Said = None
) -> Response:
    """The folder to publish as a zip file; with a Range header that names a start, the rest of it."""
    return download(session, access, snapshot_id, range, if_range)


def query_of(listed: Listed) -> str | None:
    """What `export` is asked for to give the same file; None for a text."""
    if listed.choice is None:
        return None
    shard = {"shard": listed.choice.shard} if listed.choice.num_shards > 1 else {}
    return urlencode({**chosen(listed.choice), **shard, "file": listed.choice.file})


def archive_again(project: Project, snapshot: Snapshot, range: str | None, if_range: str | None) -> Response:
    with SessionFactory() as session:
        return archive(project, snapshot, files_of(session, project, snapshot), range, if_range)


def archive(
    project: Project, snapshot: Snapshot, listed: Sequence[Listed], range: str | None, if_range: str | None
) -> Response:
    return zip_answer(stem_of(project.slug, snapshot), [each.file for each in listed], range, if_range)
