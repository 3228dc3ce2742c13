"""Pages and API of getting in: guidelines to accept, onboarding, and slates with a known answer."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import RedirectResponse, Response
from starlette.datastructures import FormData

from app.db import SessionDep, clock
from app.labeling.models import SlateKind
from app.labeling.screen import LETTERS
from app.pages import render
from app.people.access import Access, AdminAccess, LabelerAccess, ResearcherAccess, WorkAccess, labeler_of
from app.projects.errors import BadProjectSetting
from app.projects.service import current_guidelines, revise_guidelines
from app.quality import gold, guidelines, onboarding
from app.quality.entry_errors import BadKnownAnswer
from app.quality.entry_schemas import AcceptanceOut, GuidelinesOut

router = APIRouter(prefix="/projects/{slug}")
api = APIRouter(prefix="/projects/{slug}", tags=["getting in"])


async def _fields(request: Request) -> FormData:
    return await request.form()


Fields = Annotated[FormData, Depends(_fields)]


def _to(access: Access, path: str) -> RedirectResponse:
    return RedirectResponse(f"/projects/{access.project.slug}/{path}", status_code=303)


# Guidelines


@router.get("/guidelines")
def guidelines_page(request: Request, access: LabelerAccess, session: SessionDep) -> Response:
    """The newest guidelines, with one button where they are to be accepted."""
    return render(
        request,
        "quality/guidelines.html",
        guidelines=current_guidelines(session, access.project),
        must_accept=guidelines.has_to_accept(session, access.account, access.project),
        accepted=guidelines.last_accepted(session, access.account, access.project),
    )


@router.post("/guidelines/{version}/acceptance")
def accept_page(version: int, access: LabelerAccess, session: SessionDep) -> Response:
    """Accept a version and go on to the first task; if a newer one came meanwhile, that one is shown."""
    guidelines.accept(session, access.account, access.project, version, now=clock(session))
    return _to(access, "work")


@router.get("/guidelines/versions")
def versions_page(request: Request, access: ResearcherAccess, session: SessionDep) -> Response:
    """Every version, with what it asked for."""
    return render(
        request, "quality/guidelines_versions.html", versions=guidelines.versions(session, access.project), shown=None
    )


@router.get("/guidelines/versions/{version}")
def version_page(request: Request, version: int, access: ResearcherAccess, session: SessionDep) -> Response:
    """One version, in full."""
    return render(
        request,
        "quality/guidelines_versions.html",
        versions=guidelines.versions(session, access.project),
        shown=guidelines.get_version(session, access.project, version),
    )


@router.get("/guidelines/edit")
def edit_page(request: Request, access: AdminAccess, session: SessionDep) -> Response:
    """The form that makes a new version."""
    return _edit_form(request, access, session, given=None)


@router.post("/guidelines/edit")
def save_guidelines(
    request: Request,
    access: AdminAccess,
    session: SessionDep,
    markdown: Annotated[str, Form()] = "",
    needs_acceptance: Annotated[bool, Form()] = False,
    act: Annotated[str, Form()] = "save",
) -> Response:
    """Make a new version, or show what it would look like."""
    given: dict[str, str | bool] = {"markdown": markdown, "needs_acceptance": needs_acceptance}
    if act == "preview":
        return _edit_form(request, access, session, given=given, is_preview=True)
    try:
        revise_guidelines(
            session,
            access.project,
            markdown,
            account=access.account,
            now=clock(session),
            needs_acceptance=needs_acceptance,
        )
    except BadProjectSetting as error:
        return _edit_form(request, access, session, given=given, problem=error.rule, status=422)
    return _to(access, "guidelines/versions")


def _edit_form(
    request: Request,
    access: Access,
    session: SessionDep,
    *,
    given: dict[str, str | bool] | None,
    is_preview: bool = False,
    problem: str | None = None,
    status: int = 200,
) -> Response:
    newest = current_guidelines(session, access.project)
    return render(
        request,
        "quality/guidelines_edit.html",
        status_code=status,
        guidelines=newest,
        given=given or {"markdown": newest.markdown, "needs_acceptance": True},
        is_preview=is_preview,
        problem=problem,
    )


@api.get("/guidelines")
def get_guidelines(access: LabelerAccess, session: SessionDep) -> GuidelinesOut:
    """The newest guidelines, and whether they are still to be accepted."""
    newest = current_guidelines(session, access.project)
    must_accept = guidelines.has_to_accept(session, access.account, access.project)
    return GuidelinesOut(version=newest.version, markdown=newest.markdown, must_accept=must_accept)


@api.post("/guidelines/{version}/acceptance")
def accept_guidelines(version: int, access: LabelerAccess, session: SessionDep) -> AcceptanceOut:
    """Accept a version; a second time changes nothing."""
    guidelines.accept(session, access.account, access.project, version, now=clock(session))
    return AcceptanceOut(version=version)


# Onboarding


@router.get("/onboarding")
def onboarding_page(request: Request, access: WorkAccess, session: SessionDep) -> Response:
    """Where a newcomer stands."""
    labeler = labeler_of(session, access)
    return render(
        request,
        "quality/onboarding.html",
        standing=onboarding.standing(session, access.project, labeler.id),
        threshold=access.project.onboarding_threshold,
    )


@router.get("/onboarding/{ranking_id}")
def lesson_page(request: Request, ranking_id: UUID, access: LabelerAccess, session: SessionDep) -> Response:
    """The lesson after an onboarding slate, for those without a script."""
    ranking, lesson = onboarding.find_lesson(session, access.project, access.account, ranking_id)
    ranks = {item.completion_id: item.rank for item in ranking.items}
    texts = {completion.id: completion.text for completion in ranking.slate.completions}
    return render(
        request,
        "quality/onboarding_lesson.html",
        lesson=lesson,
        messages=ranking.slate.prompt.messages,
        completions=[
            (letter, texts[completion_id], ranks[completion_id], lesson.ranks[completion_id])
            for letter, completion_id in zip(LETTERS, ranking.order_shown, strict=False)
        ],
    )


@router.get("/quality/newcomers")
def newcomers_page(request: Request, access: AdminAccess, session: SessionDep) -> Response:
    """Who is on their way in, and who waits for an admin."""
    return render(request, "quality/onboarding_newcomers.html", newcomers=onboarding.newcomers(session, access.project))


@router.post("/quality/newcomers/{labeler_id}/admission")
def admit(labeler_id: int, access: AdminAccess, session: SessionDep) -> Response:
    """Let a newcomer in."""
    onboarding.admit(session, access.project, labeler_id, by=access.account, now=clock(session))
    return _to(access, "quality/newcomers")


@router.post("/quality/newcomers/{labeler_id}/another-try")
def allow_another_try(labeler_id: int, access: AdminAccess, session: SessionDep) -> Response:
    """Let a newcomer who waits try again."""
    onboarding.allow_another_try(session, access.project, labeler_id, by=access.account)
    return _to(access, "quality/newcomers")


# Known answers


@router.get("/quality/gold")
def gold_page(
    request: Request, access: ResearcherAccess, session: SessionDep, before: Annotated[datetime | None, Query()] = None
) -> Response:
    """The known answers in use, and slates that could become one."""
    choices = gold.slates_to_choose_from(session, access.project, before=before)
    return render(
        request,
        "quality/gold.html",
        known=gold.known_answers(session, access.project),
        choices=choices,
        next_page=choices[-1].created_at.isoformat() if len(choices) == gold.A_PAGE else None,
    )


@router.get("/quality/gold/new/{slate_id}")
def new_gold_page(request: Request, slate_id: UUID, access: ResearcherAccess, session: SessionDep) -> Response:
    """The form that ranks a copy of a slate."""
    return _gold_form(request, access, session, slate_id, given={}, problem=None)


@router.post("/quality/gold/new/{slate_id}")
def make_gold(
    request: Request, slate_id: UUID, fields: Fields, access: ResearcherAccess, session: SessionDep
) -> Response:
    """Make a gold or an onboarding slate; what is missing is said and nothing typed is lost."""
    given = {name: value for name, value in fields.items() if isinstance(value, str)}
    source = gold.slate_to_rank(session, access.project, slate_id)
    ranks = {
        completion.id: int(given[f"rank:{letter}"])
        for letter, completion in zip(LETTERS, source.completions, strict=False)
        if given.get(f"rank:{letter}", "").isdecimal() and 1 <= int(given[f"rank:{letter}"]) <= source.k
    }
    kind = SlateKind.ONBOARDING if given.get("kind") == SlateKind.ONBOARDING else SlateKind.GOLD
    try:
        gold.make_known(
            session,
            access.project,
            source,
            kind,
            ranks=ranks,
            reason=given.get("reason", ""),
            account=access.account,
            now=clock(session),
        )
    except BadKnownAnswer as error:
        return _gold_form(request, access, session, slate_id, given=given, problem=str(error))
    return _to(access, "quality/gold")


def _gold_form(
    request: Request,
    access: Access,
    session: SessionDep,
    slate_id: UUID,
    *,
    given: dict[str, str],
    problem: str | None,
) -> Response:
    slate = gold.slate_to_rank(session, access.project, slate_id)
    return render(
        request,
        "quality/gold_new.html",
        status_code=422 if problem else 200,
        slate=slate,
        completions=list(zip(LETTERS, slate.completions, strict=False)),
        given=given,
        problem=problem,
        longest_reason=gold.LONGEST_REASON,
    )


@router.post("/quality/gold/{slate_id}/retirement")
def retire_gold(slate_id: UUID, access: ResearcherAccess, session: SessionDep) -> Response:
    """Give the slate to nobody any more."""
    gold.retire(session, access.project, slate_id, account=access.account, now=clock(session))
    return _to(access, "quality/gold")
