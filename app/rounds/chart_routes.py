"""A stage's charts: the picture, its page with the table, the numbers as a file; and what its policy wrote."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from sqlalchemy.orm import Session

from app.db import SessionDep
from app.pages import render
from app.people.access import ResearcherAccess
from app.rounds import samples, views
from app.rounds.addresses import FoundRound, FoundStage
from app.rounds.charts import Chart, chart_named, draw
from app.rounds.errors import ChartNotFound
from app.rounds.models import Stage

router = APIRouter()

# Nothing in a chart runs, and its own style sheet is all it needs.
PICTURE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "Cache-Control": "private, max-age=3600",
}


def found_chart(session: Session, stage: Stage, key: str) -> Chart:
    chart = chart_named(key, views.metric_names(session, stage))
    if chart is None:
        raise ChartNotFound(stage.recipe, key)
    return chart


@router.get("/{number}/{recipe}/charts/{key}.svg")
def chart_picture(stage: FoundStage, key: str, session: SessionDep) -> Response:
    """The chart. Its address on the page names the last step, so a browser may keep it."""
    chart = found_chart(session, stage, key)
    svg = draw(chart, views.series_of(session, stage, list(chart.series)))
    return Response(
        svg,
        media_type="image/svg+xml",
        headers=PICTURE_HEADERS,
    )


@router.get("/{number}/{recipe}/charts/{key}.csv")
def chart_numbers(round: FoundRound, stage: FoundStage, key: str, session: SessionDep) -> Response:
    """The chart's numbers as a file."""
    chart = found_chart(session, stage, key)
    columns, rows = views.table_of(chart, views.series_of(session, stage, list(chart.series)))
    name = f"round-{round.number:04}-{stage.recipe}-{chart.key}.csv"
    return Response(
        views.table_as_csv(columns, rows),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


@router.get("/{number}/{recipe}/charts/{key}")
def chart_page(request: Request, round: FoundRound, stage: FoundStage, key: str, session: SessionDep) -> Response:
    """The chart with its table."""
    chart = found_chart(session, stage, key)
    columns, rows = views.table_of(chart, views.series_of(session, stage, list(chart.series)))
    return render(
        request, "rounds/chart.html", round=round, stage=stage, kept=None, chart=chart, columns=columns, rows=rows
    )


@router.get("/{number}/{recipe}/samples")
def samples_page(
    request: Request,
    access: ResearcherAccess,
    round: FoundRound,
    stage: FoundStage,
    session: SessionDep,
    step: Annotated[int | None, Query(ge=0)] = None,
) -> Response:
    """What the policy wrote at one step, beside what it wrote of the same prompts at the first."""
    view = samples.samples_view(session, stage, step)
    return render(request, "rounds/samples.html", round=round, stage=stage, view=view)


@router.get("/{number}/{recipe}/samples.csv")
def samples_file(round: FoundRound, stage: FoundStage, session: SessionDep) -> Response:
    """All of it, as a file."""
    return file_of(samples.samples_as_csv(session, stage), f"round-{round.number:04}-{stage.recipe}-samples.csv")


def file_of(text: str, name: str) -> Response:
    return Response(
        text,
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )
