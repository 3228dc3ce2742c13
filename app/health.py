"""What a proxy or an orchestrator asks: does the process live, and may it be sent people."""

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from app import migrate
from app.db import SessionFactory
from app.monitoring import stopping
from app.people.access import Anyone

router = APIRouter(dependencies=[Anyone], include_in_schema=False)


@router.get("/healthz")
async def lives() -> PlainTextResponse:
    """The process answers. Touches nothing, so that a database's trouble does not make anyone kill us."""
    return PlainTextResponse("alive\n")


@router.get("/readyz")
def is_ready() -> PlainTextResponse:
    """The database answers, its schema serves this version, and nobody asked this process to stop.

    That is its own schema, or a later one in the middle of an upgrade.
    """
    if stopping.is_asked():
        return PlainTextResponse("stopping\n", status_code=503)
    engine: Engine = SessionFactory.kw["bind"]
    try:
        trouble = migrate.trouble(engine)
    except SQLAlchemyError:
        trouble = "the database cannot be reached"
    return PlainTextResponse("ready\n") if trouble is None else PlainTextResponse(f"{trouble}\n", status_code=503)
