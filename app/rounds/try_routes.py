"""The pages of a stage's earlier tries: how each ended, and its charts."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from app.db import SessionDep
from app.pages import render
from app.rounds import tries, views
from app.rounds.addresses import FoundRound, FoundStage
from app.rounds.chart_routes import PICTURE_HEADERS, file_of
from app.rounds.charts import Chart, Series, chart_named, charts_of, draw
from app.rounds.errors import ChartNotFound
from app.rounds.models import StageTry

router = APIRouter(prefix="/{number}/{recipe}/tries/{try_number}")


def found_try(stage: FoundStage, try_number: int, session: SessionDep) -> StageTry:
    """The try of the address. Raises TryNotFound."""
    return tries.get_try(session, stage, try_number)


FoundTry = Annotated[StageTry, Depends(found_try)]


def found_numbers(request: Request, kept: FoundTry) -> dict[str, Series] | None:
    """What it measured; None where its folder is not on this machine."""
    return tries.measured(request.app.state.settings.artifacts, kept)


FoundNumbers = Annotated[dict[str, Series] | None, Depends(found_numbers)]


def found_chart(stage: FoundStage, key: str, numbers: FoundNumbers) -> tuple[Chart, dict[str, Series]]:
    """The chart of the address and its numbers. Raises ChartNotFound."""
    chart = chart_named(key, list(numbers or {}))
    if chart is None:
        raise ChartNotFound(stage.recipe, key)
    return chart, {name: series for name, series in (numbers or {}).items() if name in chart.series}


FoundChart = Annotated[tuple[Chart, dict[str, Series]], Depends(found_chart)]


@router.get("")
def try_page(
    request: Request, round: FoundRound, stage: FoundStage, kept: FoundTry, numbers: FoundNumbers, session: SessionDep
) -> Response:
    """How the try went: its charts, and the settings that are others now."""
    return render(
        request,
        "rounds/try.html",
        round=round,
        stage=stage,
        kept=kept,
        tries=tries.tries_of(session, stage),
        charts=None if numbers is None else charts_of(list(numbers)),
    )


@router.get("/charts/{key}.svg")
def try_picture(found: FoundChart) -> Response:
    """A chart of the try, which changes no more."""
    return Response(draw(*found), media_type="image/svg+xml", headers=PICTURE_HEADERS)


@router.get("/charts/{key}.csv")
def try_numbers(round: FoundRound, stage: FoundStage, kept: FoundTry, found: FoundChart) -> Response:
    """The chart's numbers as a file."""
    chart, series = found
    name = f"round-{round.number:04}-{stage.recipe}-try-{kept.number}-{chart.key}.csv"
    return file_of(views.table_as_csv(*views.table_of(chart, series)), name)


@router.get("/charts/{key}")
def try_chart_page(
    request: Request, round: FoundRound, stage: FoundStage, kept: FoundTry, found: FoundChart
) -> Response:
    """The chart with its table."""
    chart, series = found
    columns, rows = views.table_of(chart, series)
    return render(
        request, "rounds/chart.html", round=round, stage=stage, kept=kept, chart=chart, columns=columns, rows=rows
    )
