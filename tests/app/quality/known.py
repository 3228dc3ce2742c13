"""Known answers for tests, made as a researcher makes them."""

from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app import db
from app.labeling.models import Lease, LeaseEnd, Slate, SlateKind

GOLD = "/projects/everyday/quality/gold"
LETTERS = "ABCDEFGHI"


def answer_form(ranks: tuple[int, ...], kind: str = "gold", reason: str = "It answers the question.") -> dict[str, str]:
    """The form; ranks in the order of the completions' positions."""
    return {"kind": kind, "reason": reason} | {
        f"rank:{letter}": str(rank) for letter, rank in zip(LETTERS, ranks, strict=False)
    }


def make_known(researcher: Any, session: Session, source: Slate, **form: Any) -> Slate:
    """The copy of `source` that labelers are given."""
    response = researcher.post(f"{GOLD}/new/{source.id}", data=answer_form(**{"ranks": (1, 2, 3, 4), **form}))
    assert response.status_code == 303, response.text
    kinds = (SlateKind.GOLD, SlateKind.ONBOARDING)
    newest = select(Slate).where(Slate.repeats_id == source.id, Slate.kind.in_(kinds)).order_by(Slate.created_at.desc())
    return session.scalars(newest).first()  # type: ignore[return-value]


def expire_leases(session: Session) -> None:
    """Close every open lease, as whoever looks for a slot does when its deadline is over."""
    expired = update(Lease).where(Lease.closed_at.is_(None))
    session.execute(expired.values(closed_at=db.clock(session), end=LeaseEnd.EXPIRED))
    session.commit()
