"""Rounds side by side: the page, its overlaid charts with their tables, and the numbers to take away."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from sqlalchemy.orm import Session

from app.db import SessionDep
from app.pages import render
from app.people.access import ResearcherAccess
from app.rounds import figures, side_by_side, views
from app.rounds.chart_routes import PICTURE_HEADERS, file_of
from app.rounds.charts import Chart, Series, draw
from app.rounds.errors import ChartNotFound
from app.rounds.models import Recipe, Round

router = APIRouter()


def found_rounds(
    access: ResearcherAccess,
    session: SessionDep,
    chosen: Annotated[list[str], Query(alias="rounds")] = [],  # noqa: B006
) -> list[Round]:
    """The rounds that the address names, for whoever may look at them."""
    return side_by_side.chosen_rounds(session, access.project, chosen)


FoundRounds = Annotated[list[Round], Depends(found_rounds)]


@router.get("/compare")
def compare_rounds(request: Request, session: SessionDep, rounds: FoundRounds) -> Response:
    """Two to four rounds side by side."""
    view = side_by_side.compared(session, rounds)
    return render(
        request,
        "rounds/side_by_side.html",
        view=view,
        rounds=rounds,
        chart_of=side_by_side.overlaid,
        figures=figures,
    )


def found_chart(session: Session, rounds: list[Round], recipe: Recipe, metric: str) -> tuple[Chart, dict[str, Series]]:
    """Raises ChartNotFound."""
    series = side_by_side.overlaid_series(session, rounds, recipe, metric)
    if not series:
        raise ChartNotFound(recipe, metric)
    return side_by_side.overlaid(metric, rounds), series


@router.get("/compare/{recipe}/charts/{metric}.svg")
def compared_picture(recipe: Recipe, metric: str, session: SessionDep, rounds: FoundRounds) -> Response:
    """One metric of all the rounds, drawn over each other."""
    chart, series = found_chart(session, rounds, recipe, metric)
    headers = {**PICTURE_HEADERS, "Cache-Control": "no-cache"}  # its address does not tell how far a round is
    return Response(draw(chart, series), media_type="image/svg+xml", headers=headers)


@router.get("/compare/{recipe}/charts/{metric}.csv")
def compared_numbers(recipe: Recipe, metric: str, session: SessionDep, rounds: FoundRounds) -> Response:
    """Its numbers as a file."""
    chart, series = found_chart(session, rounds, recipe, metric)
    columns, rows = views.table_of(chart, series)
    numbers = "-".join(str(round.number) for round in rounds)
    headings = [f"round {column}" for column in columns]
    return file_of(views.table_as_csv(headings, rows), f"rounds-{numbers}-{recipe}-{metric}.csv")


@router.get("/compare/{recipe}/charts/{metric}")
def compared_chart(request: Request, recipe: Recipe, metric: str, session: SessionDep, rounds: FoundRounds) -> Response:
    """The chart with its table."""
    chart, series = found_chart(session, rounds, recipe, metric)
    columns, rows = views.table_of(chart, series)
    return render(
        request, "rounds/side_by_side_chart.html", rounds=rounds, recipe=recipe, chart=chart, columns=columns, rows=rows
    )
