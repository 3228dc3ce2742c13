"""The chart of score against KL: its picture, its page with the table, and its numbers."""

from fastapi import APIRouter, Request, Response

from app.db import SessionDep
from app.pages import render
from app.people.access import ResearcherAccess
from app.policies import scores

router = APIRouter(prefix="/projects/{slug}/policies/score-and-kl")


@router.get("")
def score_page(request: Request, access: ResearcherAccess, session: SessionDep) -> Response:
    """Every evaluated version, drawn and as a table."""
    return render(request, "policies/scores.html", evaluations=scores.evaluations(session, access.project))


@router.get(".svg")
def score_picture(access: ResearcherAccess, session: SessionDep) -> Response:
    """The chart. Its address on the page names the newest round, so a browser may keep it."""
    return Response(
        scores.draw(scores.evaluations(session, access.project)),
        media_type="image/svg+xml",
        # Nothing in it runs, and its own style sheet is all it needs.
        headers={
            "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
            "Cache-Control": "private, max-age=300",
        },
    )


@router.get(".csv")
def score_numbers(access: ResearcherAccess, session: SessionDep) -> Response:
    """The chart's numbers as a file."""
    name = f"{access.project.slug}-score-and-kl.csv"
    return Response(
        scores.as_csv(scores.evaluations(session, access.project)),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )
