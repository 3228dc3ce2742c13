"""Who hears that a round has changed."""

from sqlalchemy.orm import Session

from app.db import EVENTS_CHANNEL, notify
from app.notifications.watching import round_changed
from app.rounds.models import Round


def announce(session: Session, round: Round) -> None:
    """Tell the live pages of the round and of its project, and other systems, when this transaction commits."""
    round_changed(session, round)
    notify(session, EVENTS_CHANNEL, f"round:{round.id}")
    notify(session, EVENTS_CHANNEL, f"project:{round.project_id}")
