"""/metrics of the web processes, for Prometheus."""

from fastapi import APIRouter, Request, Response

from app.monitoring import database_metrics, web_metrics
from app.monitoring.exposition import check_token, exposition
from app.people.access import Anyone
from app.rounds.events import num_viewers
from app.security import bearer

router = APIRouter(dependencies=[Anyone], include_in_schema=False)  # it has a token of its own


@router.get("/metrics")
def metrics(request: Request) -> Response:
    """What this installation counts. Raises MetricsNotOpen, WrongMetricsToken."""
    check_token(request.app.state.settings.metrics_token, bearer(request))
    web_metrics.look_at_process(num_viewers())
    registries = web_metrics.registry(), database_metrics.REGISTRY
    body, content_type = exposition(request.headers.get("accept"), *registries)
    return Response(body, media_type=content_type)
