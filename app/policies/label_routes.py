"""Pages and API between labels and policies: which labels made a version, and what became of a slate's rankings."""

import csv
import io
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response

from app.datasets.breakdowns import Content
from app.db import SessionDep
from app.pages import render
from app.people.access import ResearcherAccess
from app.policies import labels, slates
from app.policies.errors import SourceNotFound
from app.policies.labels import Source
from app.policies.models import PolicyVersion
from app.policies.schemas import LabelOut, ReachedOut, SourceOut
from app.policies.service import get_version
from app.spreadsheets import harmless

router = APIRouter(prefix="/projects/{slug}")
api = APIRouter(prefix="/projects/{slug}", tags=["policies"])


def found_version(access: ResearcherAccess, number: int, session: SessionDep) -> PolicyVersion:
    """The version of the address, for whoever may look at it."""
    return get_version(session, access.project, number)


FoundVersion = Annotated[PolicyVersion, Depends(found_version)]


def found_source(version: FoundVersion, content: Content, snapshot_id: int, session: SessionDep) -> Source:
    """The labels of the address. Raises SourceNotFound for a snapshot that the version did not learn from."""
    for source in labels.sources_of(session, version):
        if (source.content, source.snapshot.id) == (content, snapshot_id):
            return source
    raise SourceNotFound(version.number)


FoundSource = Annotated[Source, Depends(found_source)]
After = Annotated[int, Query(ge=0)]


@router.get("/policies/{number}/labels/{content}/{snapshot_id}")
def labels_page(
    request: Request,
    access: ResearcherAccess,
    version: FoundVersion,
    source: FoundSource,
    session: SessionDep,
    after: After = 0,
) -> Response:
    """The labels of one snapshot that a version learned from: counted, and one by one."""
    page = labels.labels_of(session, source, after=after, limit=labels.A_PAGE)
    return render(
        request,
        "policies/labels.html",
        version=version,
        source=source,
        counts=labels.breakdown(session, source),
        labels=page,
        after=after,
        has_more=bool(page) and page[-1].position < last_position(source),
    )


def last_position(source: Source) -> int:
    """A snapshot's positions count from 1 without a gap."""
    return source.num_labels


@router.get("/policies/{number}/labels/{content}/{snapshot_id}/counts.csv")
def counts_file(version: FoundVersion, source: FoundSource, session: SessionDep) -> Response:
    """The counts as a file."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["by", "of", source.content])
    for dimension, counts in labels.breakdown(session, source).items():
        writer.writerows([dimension, harmless(key), num] for key, num in counts.items())
    name = f"policy-{version.number}-{source.content}-{source.snapshot.id}.csv"
    return Response(
        text.getvalue(),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


@router.get("/slates/{slate_id}")
def slate_page(request: Request, access: ResearcherAccess, slate_id: UUID, session: SessionDep) -> Response:
    """A slate, who wrote what, how it was ranked, and which policies the rankings reached."""
    slate = slates.find_slate(session, access.project, slate_id)
    return render(request, "policies/slate.html", view=slates.slate_view(session, access.project, slate))


# The API


@api.get("/policies/{number}/labels")
def sources_out(version: FoundVersion, session: SessionDep) -> list[SourceOut]:
    """What a version learned from, the version's own labels first, with their counts."""
    return [SourceOut.of(source, labels.breakdown(session, source)) for source in labels.sources_of(session, version)]


@api.get("/policies/{number}/labels/{content}/{snapshot_id}")
def labels_out(source: FoundSource, session: SessionDep, after: After = 0) -> list[LabelOut]:
    """Labels of one snapshot in its order. after: the position of the last one that is known already."""
    return [
        LabelOut.model_validate(label) for label in labels.labels_of(session, source, after=after, limit=labels.A_PAGE)
    ]


@api.get("/rankings/{ranking_id}/policies")
def reached_out(access: ResearcherAccess, ranking_id: UUID, session: SessionDep) -> list[ReachedOut]:
    """The policy versions that a ranking reached."""
    ranking = slates.find_ranking(session, access.project, ranking_id)
    return [
        ReachedOut(
            version=reached.version.number,
            reward_model=None if reached.via is None else reached.via.number,
            from_version=None if reached.from_version is None else reached.from_version.number,
        )
        for reached in labels.reached_by(session, access.project, ranking)
    ]
