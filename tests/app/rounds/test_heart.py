"""A sampler or trainer says that it is alive."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import clock
from app.rounds import heart
from app.rounds.models import Heartbeat


def test_a_process_that_ends_in_good_order_is_not_missing(session: Session) -> None:
    for doing in ("waiting", "sampling"):
        heart.beat(session, "sampler@here", "sampler", doing, now=clock(session))
    assert session.scalars(select(Heartbeat)).one().doing == "sampling"
    heart.stop_beating(session, "sampler@here")
    assert session.scalars(select(Heartbeat)).all() == []
