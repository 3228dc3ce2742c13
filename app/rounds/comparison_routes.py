"""A round's blind comparison in detail: how its interval narrowed, as page, picture, file and answer of the API."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from app.db import SessionDep
from app.pages import render
from app.people.access import ResearcherAccess
from app.policies.evaluation import rule_for, win_rate
from app.policies.length_control import equal_length_of
from app.rounds.addresses import FoundRound
from app.rounds.chart_routes import PICTURE_HEADERS
from app.rounds.charts import draw
from app.rounds.comparison_path import CHART, as_csv, looks_of, series_of
from app.rounds.comparison_schemas import ComparisonOut, comparison_out

router = APIRouter(prefix="/projects/{slug}/rounds/{number}")
api = APIRouter(prefix="/projects/{slug}/rounds/{number}", tags=["rounds"])


@router.get("/comparison")
def comparison_page(request: Request, access: ResearcherAccess, round: FoundRound, session: SessionDep) -> Response:
    """The chart with its table."""
    return render(request, "rounds/comparison_path.html", round=round, chart=CHART, looks=looks_of(session, round))


@router.get("/comparison.svg")
def comparison_picture(round: FoundRound, session: SessionDep) -> Response:
    """The chart. Its address on the page names how many comparisons were in, so a browser may keep it."""
    series = series_of(looks_of(session, round), rule_for(session, round))
    return Response(draw(CHART, series), media_type="image/svg+xml", headers=PICTURE_HEADERS)


@router.get("/comparison.csv")
def comparison_numbers(round: FoundRound, session: SessionDep) -> Response:
    """The chart's numbers as a file."""
    name = f"round-{round.number:04}-comparison.csv"
    return Response(
        as_csv(looks_of(session, round)),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


@api.get("/comparison")
def get_comparison_out(round: FoundRound, session: SessionDep) -> ComparisonOut:
    """What the blind comparisons of a round say, at equal length too, and what the rule saw on the way."""
    return comparison_out(
        win_rate(session, round), rule_for(session, round), equal_length_of(session, round), looks_of(session, round)
    )
