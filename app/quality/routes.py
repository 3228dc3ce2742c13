"""Pages and API of quality: agreement, people's standing, adjudication, and a labeler's own statistics."""

from dataclasses import asdict, dataclass
from datetime import date
from typing import Annotated, Any
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import RedirectResponse, Response
from sqlalchemy.orm import Session
from starlette.datastructures import FormData

from app.db import SessionDep, clock
from app.pages import render
from app.people.access import Access, AdminAccess, ResearcherAccess, WorkAccess, labeler_of
from app.people.names import may_read_names
from app.prompts.models import PromptKind
from app.quality import adjudication, conduct, reports, standing
from app.quality.charts import Names, Picture, as_csv, draw, pictures
from app.quality.errors import BadDecision, QualityChartNotFound, ReasonMissing
from app.quality.judgements import Filter
from app.quality.kept_reports import report_to_show
from app.quality.models import Step
from app.quality.own import own_statistics
from app.quality.reports import Between, PersonLine, QualityReport, find_report
from app.quality.schemas import DecisionForm, DecisionOut, QualityOut, StepForm, StepOut

router = APIRouter(prefix="/projects/{slug}")
api = APIRouter(prefix="/projects/{slug}/quality", tags=["quality"])


async def _fields(request: Request) -> FormData:
    return await request.form()


Fields = Annotated[FormData, Depends(_fields)]


def _to(access: Access, path: str) -> RedirectResponse:
    return RedirectResponse(f"/projects/{access.project.slug}/{path}", status_code=303)


# Agreement


@dataclass(frozen=True)
class View:
    """What the address of the quality page says: which rankings, whose agreement, in which order people stand."""

    chosen: Filter
    between: Between
    sort: str
    report: str  # the version that a page's charts ask for

    @property
    def query(self) -> dict[str, str]:
        told = {**asdict(self.chosen), "between": self.between.value, "sort": self.sort}
        named = ("since", "until", "prompt_kind", "between", "sort")
        return {name: str(told[name]) for name in named if told[name]}

    def address(self, **changes: str) -> str:
        """The same view with something changed, as the query of an address."""
        return "?" + urlencode({**self.query, **changes})


def view_of(
    since: Annotated[str, Query(max_length=40)] = "",
    until: Annotated[str, Query(max_length=40)] = "",
    prompt_kind: Annotated[str, Query(max_length=40)] = "",
    between: Annotated[str, Query(max_length=40)] = "",
    sort: Annotated[str, Query(max_length=40)] = "",
    report: Annotated[str, Query(max_length=40)] = "",
) -> View:
    """The view of an address. What a form left empty, or nobody can read, chooses nothing."""
    return View(
        Filter(
            since=_day(since),
            until=_day(until),
            prompt_kind=prompt_kind if prompt_kind in set(PromptKind) else None,
        ),
        Between(between) if between in set(Between) else Between.LABELERS,
        sort if sort.removeprefix("-") in SORTS else "",
        report,
    )


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


AView = Annotated[View, Depends(view_of)]

# Columns that people can be sorted by. "-" before a name is the largest first; what is undefined comes last.
SORTS: dict[str, Any] = {
    "rankings": lambda line: line.num_rankings,
    "agreement": lambda line: line.with_labelers.alike.value,
    "researchers": lambda line: line.with_researchers.alike.value,
    "themselves": lambda line: line.with_themselves.value,
    "first": lambda line: line.first_preferred.value,
    "pace": lambda line: line.pace.median_s,
    "fast": lambda line: line.pace.fast,
    "ties": lambda line: line.ties,
    "flags": lambda line: line.num_flags,
}


def sorted_people(report: QualityReport, sort: str, name_of: Names) -> list[PersonLine]:
    """The people in the order that the address asks for, else by name."""
    by_name = sorted(report.people, key=lambda line: name_of(line).lower())
    value = SORTS.get(sort.removeprefix("-"))
    if value is None:
        return by_name
    known = [line for line in by_name if value(line) is not None]
    unknown = [line for line in by_name if value(line) is None]
    return sorted(known, key=value, reverse=sort.startswith("-")) + unknown


def names_for(session: Session, access: Access) -> tuple[dict[int, standing.Person], Names]:
    """Everyone who ranks here, and what the reader may call them; a researcher's look at names is written down."""
    people = standing.people_of(session, access.project)
    by_name = may_read_names(session, access, "quality")
    return people, lambda line: people[line.labeler_id].called(by_name=by_name)


@router.get("/quality")
def quality_page(request: Request, access: ResearcherAccess, view: AView, session: SessionDep) -> Response:
    """How alike people rank, how each of them works, and whom an admin should look at."""
    report = report_to_show(session, access.project.id, view.chosen, view.between, now=clock(session))
    people, name_of = names_for(session, access)
    return render(
        request,
        "quality/agreement.html",
        report=report,
        view=view,
        people=people,
        name_of=name_of,
        lines=sorted_people(report, view.sort, name_of),
        pictures={picture.key: picture for picture in pictures(report, name_of)},
        between=list(Between),
        prompt_kinds=list(PromptKind),
        references=reports.REFERENCES,
        fast=conduct.FAST,
    )


def _picture(session: Session, access: Access, view: View, key: str) -> Picture:
    report = find_report(access.project.id, view.report)
    if report is None:
        report = report_to_show(session, access.project.id, view.chosen, view.between, now=clock(session))
    _, name_of = names_for(session, access)
    found = next((picture for picture in pictures(report, name_of) if picture.key == key), None)
    if found is None:
        raise QualityChartNotFound(key)
    return found


@router.get("/quality/charts/{key}.svg")
def chart_picture(key: str, access: ResearcherAccess, view: AView, session: SessionDep) -> Response:
    """The chart. Its address on the page names the report, so a browser may keep it."""
    return Response(
        draw(_picture(session, access, view, key)),
        media_type="image/svg+xml",
        # Nothing in it runs, and its own style sheet is all it needs.
        headers={
            "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
            "Cache-Control": "private, max-age=3600",
        },
    )


@router.get("/quality/charts/{key}.csv")
def chart_numbers(key: str, access: ResearcherAccess, view: AView, session: SessionDep) -> Response:
    """The chart's numbers as a file."""
    return Response(
        as_csv(_picture(session, access, view, key)),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{access.project.slug}-{key}.csv"'},
    )


# People


@router.get("/quality/people/{labeler_id}")
def person_page(request: Request, labeler_id: int, access: ResearcherAccess, session: SessionDep) -> Response:
    """One person's figures, and for an admin the steps that may come next."""
    return _person_page(request, session, access, labeler_id)


def _person_page(
    request: Request,
    session: Session,
    access: Access,
    labeler_id: int,
    *,
    problem: str | None = None,
    reason: str = "",
) -> Response:
    person = standing.find_person(session, access.project, labeler_id)
    report = report_to_show(session, access.project.id, Filter(), Between.LABELERS, now=clock(session))
    taken = standing.history(session, labeler_id)
    return render(
        request,
        "quality/labeler.html",
        status_code=422 if problem else 200,
        person=person,
        name=person.called(by_name=may_read_names(session, access, f"labeler:{labeler_id}")),
        line=next((line for line in report.people if line.labeler_id == labeler_id), None),
        made_at=report.made_at,
        usual_pace_s=report.usual_pace_s,
        fast=conduct.FAST,
        taken=taken,
        steps=standing.possible_steps(taken, is_member=person.role is not None, is_paused=person.is_paused),
        problem=problem,
        reason=reason,
        longest_reason=standing.LONGEST_REASON,
    )


@router.post("/quality/people/{labeler_id}")
def take_step(
    request: Request,
    labeler_id: int,
    access: AdminAccess,
    session: SessionDep,
    step: Annotated[Step, Form()],
    reason: Annotated[str, Form()] = "",
    lets_work: Annotated[bool, Form()] = False,
) -> Response:
    """Warn, pause or review; without a reason the form comes back."""
    try:
        standing.take_step(
            session,
            access.project,
            labeler_id,
            step,
            reason,
            lets_work=lets_work,
            by=access.account,
            now=clock(session),
        )
    except ReasonMissing as error:
        return _person_page(request, session, access, labeler_id, problem=str(error), reason=reason)
    return _to(access, f"quality/people/{labeler_id}")


# Adjudication


@router.get("/quality/adjudication")
def queue_page(request: Request, access: ResearcherAccess, session: SessionDep) -> Response:
    """The least agreed slates, and what was decided."""
    return render(
        request,
        "quality/adjudication.html",
        queue=adjudication.queue(session, access.project),
        longest_queue=adjudication.LONGEST_QUEUE,
        decisions=adjudication.decisions(session, access.project),
    )


@router.get("/quality/adjudication/{slate_id}")
def case_page(request: Request, slate_id: UUID, access: ResearcherAccess, session: SessionDep) -> Response:
    """One slate with its judgements, blind."""
    return _case_page(request, session, access, slate_id, given={})


def _case_page(
    request: Request,
    session: Session,
    access: Access,
    slate_id: UUID,
    *,
    given: dict[str, str],
    problem: str | None = None,
) -> Response:
    return render(
        request,
        "quality/adjudication_slate.html",
        status_code=422 if problem else 200,
        case=adjudication.case_of(session, access.project, slate_id),
        given=given,
        problem=problem,
        longest_reason=standing.LONGEST_REASON,
    )


@router.post("/quality/adjudication/{slate_id}")
def decide(request: Request, slate_id: UUID, fields: Fields, access: ResearcherAccess, session: SessionDep) -> Response:
    """Store the decision and go on with the queue; what is missing is said and nothing typed is lost."""
    given = {name: value for name, value in fields.items() if isinstance(value, str)}
    case = adjudication.case_of(session, access.project, slate_id)
    ranks = {
        completion.id: int(rank)
        for completion in case.completions
        if (rank := given.get(f"rank:{completion.letter}", "")).isdecimal() and 1 <= int(rank) <= case.slate.k
    }
    try:
        adjudication.decide(
            session, access.project, slate_id, ranks, given.get("reason", ""), by=access.account, now=clock(session)
        )
    except (BadDecision, ReasonMissing) as error:
        return _case_page(request, session, access, slate_id, given=given, problem=str(error))
    return _to(access, "quality/adjudication")


# A labeler's own page


@router.get("/mine")
def own_page(request: Request, access: WorkAccess, session: SessionDep) -> Response:
    """The labeler's own pace, time, agreement, and what admins told them."""
    labeler = labeler_of(session, access)
    own = own_statistics(session, access.project, labeler, now=clock(session))
    return render(request, "quality/mine.html", own=own, is_paused=access.is_paused)


# The API


@api.get("")
def quality_out(access: ResearcherAccess, view: AView, session: SessionDep) -> QualityOut:
    """Agreement in the project."""
    return QualityOut.of(report_to_show(session, access.project.id, view.chosen, view.between, now=clock(session)))


@api.post("/people/{labeler_id}/steps", status_code=201)
def take_step_out(labeler_id: int, form: StepForm, access: AdminAccess, session: SessionDep) -> StepOut:
    """Warn, pause or review a labeler."""
    step = standing.take_step(
        session,
        access.project,
        labeler_id,
        form.step,
        form.reason,
        lets_work=form.lets_work,
        by=access.account,
        now=clock(session),
    )
    return StepOut.model_validate(step)


@api.post("/adjudication/{slate_id}", status_code=201)
def decide_out(slate_id: UUID, form: DecisionForm, access: ResearcherAccess, session: SessionDep) -> DecisionOut:
    """Decide on a slate of the adjudication queue."""
    decision = adjudication.decide(
        session, access.project, slate_id, form.ranks, form.reason, by=access.account, now=clock(session)
    )
    return DecisionOut.model_validate(decision)
