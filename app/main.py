"""Puts the web product together. Stateless: any number of these processes may serve one installation."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path

from fastapi import Depends, FastAPI
from starlette.middleware.gzip import GZipMiddleware

from app import db, error_answers, health
from app.pages import STATIC, StaticFilesForEver
from app.security import SecurityHeaders, check_csrf
from app.settings import Settings, get_settings

AREAS = ("people", "projects", "prompts", "labeling", "rounds", "policies", "datasets")
TAKES_FILES = {"prompts", "datasets"}
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
    # Only what is the same for everyone is compressed: a compressed page would let its length betray its secrets.
    app.mount("/static", GZipMiddleware(StaticFilesForEver(directory=STATIC)), name="static")
    for area in AREAS:
        if (Path(__file__).parent / area / "routes.py").exists():
            routes = import_module(f"app.{area}.routes")
            largest = LARGEST_FILE if area in TAKES_FILES else None
            app.include_router(routes.router, max_body_size=largest)
            app.include_router(routes.api, prefix="/api/v1", max_body_size=largest)
    app.include_router(health.router)
    error_answers.install(app)
    app.add_middleware(SecurityHeaders, is_https=(settings.public_url or "").startswith("https://"))
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    if db.SessionFactory.kw.get("bind") is not None or settings.database_url is None:
        yield  # whoever made this app has connected already: tests, the demo
        return
    engine = db.connect(settings.database_url, pool_size=settings.pool_size, application="podium-web")
    yield
    engine.dispose()
