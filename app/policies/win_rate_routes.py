"""Page, files and API of the win rates between all versions. Its addresses come before those of single versions."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from app.db import SessionDep
from app.pages import render
from app.people.access import ResearcherAccess
from app.policies.win_rate_schemas import WinRatesOut, win_rates_out
from app.policies.win_rates import pairs_as_csv, strengths_as_csv, win_rates

router = APIRouter(prefix="/projects/{slug}/policies/win-rates")
api = APIRouter(prefix="/projects/{slug}/policies/win-rates", tags=["policies"])


@router.get("")
def show_win_rates(request: Request, access: ResearcherAccess, session: SessionDep) -> Response:
    """Strengths and the matrix."""
    return render(request, "policies/win_rates.html", found=win_rates(session, access.project))


@router.get("/pairs.csv")
def pairs_file(access: ResearcherAccess, session: SessionDep) -> Response:
    """The matrix as a file."""
    return _file(f"{access.project.slug}-win-rates.csv", pairs_as_csv(win_rates(session, access.project)))


@router.get("/strengths.csv")
def strengths_file(access: ResearcherAccess, session: SessionDep) -> Response:
    """The strengths as a file."""
    return _file(f"{access.project.slug}-strengths.csv", strengths_as_csv(win_rates(session, access.project)))


def _file(name: str, text: str) -> Response:
    return Response(
        text,
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


@api.get("")
def get_win_rates_out(access: ResearcherAccess, session: SessionDep) -> WinRatesOut:
    """Win rates between all versions from every blind comparison, and Bradley-Terry strengths."""
    return win_rates_out(win_rates(session, access.project))
