"""Puts the web product together. Stateless: any number of these processes may serve one installation."""

import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import Depends, FastAPI
from starlette.middleware.gzip import GZipMiddleware

from app import db, error_answers, health
from app.datasets import comparison_routes as snapshot_comparisons
from app.datasets import explorer_routes as explorer
from app.datasets import export_routes as exports
from app.datasets import import_routes as imports
from app.datasets import layout_routes as layouts
from app.datasets import routes as datasets
from app.labeling import conversation_routes as conversations
from app.labeling import demonstration_routes as demonstrations
from app.labeling import routes as labeling
from app.monitoring import routes as monitoring
from app.monitoring.process import watching
from app.monitoring.requests import Watch
from app.notifications import alarm_routes as alarms
from app.notifications import webhook_routes as webhooks
from app.notifications.courier import Courier
from app.pages import STATIC, StaticFilesForEver
from app.people import routes as people
from app.people import wrong_tokens
from app.people.caller import Met
from app.policies import evidence_routes as evidence
from app.policies import routes as policies
from app.policies import win_rate_routes as win_rates
from app.privacy import routes as privacy
from app.projects import routes as projects
from app.projects import wizard_routes as new_projects
from app.prompts import routes as prompts
from app.quality import entry_routes as getting_in
from app.quality import routes as quality
from app.reward_models import routes as reward_models
from app.rounds import comparison_routes as comparisons
from app.rounds import routes as rounds
from app.security import SecurityHeaders, check_csrf
from app.settings import Settings, get_settings
from app.upkeep import routes as upkeep

# The busiest first: a request is held against the routes one by one.
AREAS = (
    labeling,
    people,
    new_projects,
    projects,
    demonstrations,
    conversations,
    rounds,
    comparisons,
    win_rates,
    evidence,
    policies,
    reward_models,
    getting_in,
    quality,
    alarms,
    webhooks,
    explorer,
    snapshot_comparisons,
    datasets,
    exports,
    layouts,
    privacy,
    upkeep,
)
AREAS_THAT_TAKE_FILES = (prompts, imports)
LARGEST_FORM, LARGEST_FILE = 4 << 20, 1 << 30  # bytes of a request's body


def create_app(settings: Settings | None = None) -> FastAPI:
    """The web product. The database is first touched when the server starts, and only DATABASE_URL says which."""
    settings = settings or get_settings()
    app = FastAPI(
        title="Podium",
        description="Rank completions, train a reward model and the policy, judge, promote, and again.",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # its pages load scripts from elsewhere
        redoc_url=None,
        dependencies=[Depends(check_csrf)],
        max_body_size=LARGEST_FORM,
        lifespan=_lifespan,
    )
    app.state.settings = settings
    app.state.met = Met()
    # Only what is the same for everyone is compressed: a compressed page would let its length betray its secrets.
    app.mount("/static", GZipMiddleware(StaticFilesForEver(directory=STATIC)), name="static")
    for area in AREAS:
        app.include_router(area.router)
        app.include_router(area.api, prefix="/api/v1")
    for area in AREAS_THAT_TAKE_FILES:
        app.include_router(area.router, max_body_size=LARGEST_FILE)
        app.include_router(area.api, prefix="/api/v1", max_body_size=LARGEST_FILE)
    app.include_router(health.router)
    app.include_router(monitoring.router)
    error_answers.install(app)
    wrong_tokens.install(app)
    app.add_middleware(SecurityHeaders, is_https=(settings.public_url or "").startswith("https://"))
    app.add_middleware(Watch, product=app, access=settings.access_log)  # the last one is the outermost
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Connect what whoever made this app has not connected already."""
    settings: Settings = app.state.settings
    url = settings.database_url
    for_pages, for_the_loop = (settings.pool_size + 1) // 2, settings.pool_size // 2
    async with AsyncExitStack() as connections:
        if url is not None and db.SessionFactory.kw.get("bind") is None:
            engine = db.connect(url, pool_size=for_pages, application="podium-web")
            connections.callback(engine.dispose)
        if url is not None and db.LoopSessionFactory.kw.get("bind") is None:
            loop_engine = db.connect_loop(url, application="podium-web", pool_size=for_the_loop, max_overflow=0)
            connections.push_async_callback(loop_engine.dispose)
            connections.callback(db.LoopSessionFactory.configure, bind=None)
            gc.collect()
            gc.freeze()  # in a process of its own, what was made so far stays: the collector need not look at it again
        if db.SessionFactory.kw.get("bind") is not None:
            courier = Courier(settings)
            courier.start()
            connections.callback(courier.stop)
        await connections.enter_async_context(watching(settings.drain_s))
        yield
