"""What is kept about a person, for this person: who they are here, and all that they gave. Changes nothing.

It says nothing that they could not see as they worked: neither which policy wrote what, nor what others said. The time
and the ids are enough to ask an admin about any line of it.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from app.db import SessionFactory
from app.labeling.models import Completion, Demonstration, Draft, Lease, Ranking, RankingItem, Slate
from app.labeling.task_models import ConversationTurn, Writing
from app.people.models import Account, APIKey, AuditEvent, Labeler, Membership, SignInSession, SignOnIdentity
from app.projects.models import Guidelines, Project
from app.prompts.models import Prompt
from app.quality.entry_models import GuidelinesAcceptance, ReferenceRanking
from app.quality.models import Adjudication, QualityAction

RANKINGS_A_PIECE = 500


@dataclass(frozen=True)
class Given:
    """How much of each a person gave in one project."""

    slug: str
    project: str
    role: str | None
    num_rankings: int
    num_demonstrations: int
    num_conversations: int


def given_by(session: Session, account: Account) -> list[Given]:
    """What the account gave, project by project."""

    def count(what: Any, *where: Any) -> Any:
        return select(func.count()).select_from(what).where(*where).scalar_subquery()

    rows = session.execute(
        select(
            Project.slug,
            Project.name,
            Membership.role,
            count(Ranking, Ranking.labeler_id == Labeler.id),
            count(Demonstration, Demonstration.labeler_id == Labeler.id),
            count(ConversationTurn, ConversationTurn.writing_id == Writing.id, Writing.labeler_id == Labeler.id),
        )
        .select_from(Labeler)
        .join(Project, Project.id == Labeler.project_id)
        .outerjoin(Membership, (Membership.project_id == Project.id) & (Membership.account_id == Labeler.account_id))
        .where(Labeler.account_id == account.id)
        .order_by(Project.name)
    )
    return [Given(slug, name, role.value if role else None, *counts) for slug, name, role, *counts in rows]


def own_data(session: Session, account: Account) -> Iterator[str]:
    """All of it as one JSON document, in pieces; rankings are read a few hundred at a time in sessions of their own."""
    head = _account(session, account)
    projects = session.execute(
        select(Labeler.id, Project.slug, Project.name)
        .join(Project, Project.id == Labeler.project_id)
        .where(Labeler.account_id == account.id)
        .order_by(Project.id)
    ).all()
    return _document(head, [(labeler_id, slug, name) for labeler_id, slug, name in projects])


def _document(head: dict[str, Any], projects: Sequence[tuple[int, str, str]]) -> Iterator[str]:
    yield f'{{"account": {_json(head)}, "projects": ['
    for number, (labeler_id, slug, name) in enumerate(projects):
        with _reading() as session:
            told = {"slug": slug, "name": name, **_of_project(session, labeler_id)}
        yield f"{', ' if number else ''}{_json(told)[:-1]}, "
        yield from _listed(_rankings(labeler_id))
        yield "}"
    yield "]}\n"


def _reading() -> Session:
    session = SessionFactory()
    session.execute(text("SET TRANSACTION READ ONLY"))
    return session


def _listed(rankings: Iterable[dict[str, Any]]) -> Iterator[str]:
    yield '"rankings": ['
    for number, ranking in enumerate(rankings):
        yield f"{', ' if number else ''}{_json(ranking)}"
    yield "]"


def _account(session: Session, account: Account) -> dict[str, Any]:
    def all_of(table: Any, *columns: Any) -> list[dict[str, Any]]:
        rows = session.execute(select(*columns).where(table.account_id == account.id))
        return [dict(row._mapping) for row in rows]

    accepted = session.execute(
        select(Project.slug.label("project"), Guidelines.version, GuidelinesAcceptance.accepted_at)
        .select_from(GuidelinesAcceptance)
        .join(Guidelines, Guidelines.id == GuidelinesAcceptance.guidelines_id)
        .join(Project, Project.id == Guidelines.project_id)
        .where(GuidelinesAcceptance.account_id == account.id)
    )
    keys = session.execute(
        select(APIKey.name, APIKey.scope, Project.slug.label("project"), APIKey.created_at, APIKey.last_used_at)
        .select_from(APIKey)
        .outerjoin(Project, Project.id == APIKey.project_id)
        .where(APIKey.account_id == account.id)
    )
    return {
        "name": account.name,
        "email": account.email,
        "since": account.created_at,
        "sessions": all_of(
            SignInSession, SignInSession.created_at, SignInSession.last_seen_at, SignInSession.user_agent
        ),
        "keys": [dict(row._mapping) for row in keys],
        "single_sign_on": all_of(SignOnIdentity, SignOnIdentity.issuer, SignOnIdentity.subject, SignOnIdentity.email),
        "guidelines_accepted": [dict(row._mapping) for row in accepted],
        "decisions": all_of(
            Adjudication, Adjudication.slate_id, Adjudication.ranks, Adjudication.reason, Adjudication.created_at
        ),
        "known_answers": all_of(
            ReferenceRanking,
            ReferenceRanking.slate_id,
            ReferenceRanking.ranks,
            ReferenceRanking.reason,
            ReferenceRanking.created_at,
        ),
        "acts": all_of(AuditEvent, AuditEvent.at, AuditEvent.action, AuditEvent.subject),
    }


def _of_project(session: Session, labeler_id: int) -> dict[str, Any]:
    """All but the rankings, of which there may be many."""
    demonstrations = session.execute(
        select(
            Demonstration.id,
            Prompt.messages,
            Demonstration.text,
            Demonstration.use_case,
            Demonstration.active_s,
            Demonstration.created_at,
            Demonstration.retracted_at,
        )
        .join(Prompt, Prompt.id == Demonstration.prompt_id)
        .where(Demonstration.labeler_id == labeler_id)
        .order_by(Demonstration.created_at, Demonstration.id)
    )
    turns = session.execute(
        select(Writing.id.label("conversation"), ConversationTurn.number, Prompt.messages, ConversationTurn.asked_at)
        .select_from(ConversationTurn)
        .join(Writing, Writing.id == ConversationTurn.writing_id)
        .join(Prompt, Prompt.id == ConversationTurn.prompt_id)
        .where(Writing.labeler_id == labeler_id)
        .order_by(ConversationTurn.asked_at)
    )
    drafts = session.execute(select(Draft.content, Draft.updated_at).where(Draft.labeler_id == labeler_id))
    writings = session.execute(
        select(Writing.task, Writing.content, Writing.touched_at).where(
            Writing.labeler_id == labeler_id, Writing.closed_at.is_(None)
        )
    )
    skipped = session.execute(
        select(Lease.slate_id, Lease.end, Lease.reason, Lease.closed_at).where(
            Lease.labeler_id == labeler_id, Lease.reason.is_not(None)
        )
    )
    told = session.execute(
        select(QualityAction.step, QualityAction.reason, QualityAction.created_at).where(
            QualityAction.labeler_id == labeler_id
        )
    )
    sections = {
        "demonstrations": demonstrations,
        "conversation_turns": turns,
        "drafts": drafts,
        "open_writing": writings,
        "skipped": skipped,
        "told_by_admins": told,
    }
    pseudonym = session.scalars(select(Labeler.pseudonym).where(Labeler.id == labeler_id)).one()
    return {"pseudonym": pseudonym} | {name: [dict(row._mapping) for row in rows] for name, rows in sections.items()}


def _rankings(labeler_id: int) -> Iterator[dict[str, Any]]:
    after: tuple[datetime, Any] | None = None
    while True:
        with _reading() as session:
            piece = _piece_of_rankings(session, labeler_id, after)
        yield from piece
        if len(piece) < RANKINGS_A_PIECE:
            return
        after = piece[-1]["submitted_at"], piece[-1]["id"]


def _piece_of_rankings(session: Session, labeler_id: int, after: tuple[datetime, Any] | None) -> list[dict[str, Any]]:
    query = (
        select(Ranking, Prompt.messages)
        .join(Slate, Slate.id == Ranking.slate_id)
        .join(Prompt, Prompt.id == Slate.prompt_id)
        .where(Ranking.labeler_id == labeler_id)
        .order_by(Ranking.submitted_at, Ranking.id)
        .limit(RANKINGS_A_PIECE)
    )
    if after is not None:
        query = query.where(func.row(Ranking.submitted_at, Ranking.id) > func.row(*after))
    rows = session.execute(query).all()
    items: dict[Any, list[dict[str, Any]]] = {}
    for item, completion_text in session.execute(
        select(RankingItem, Completion.text)
        .join(Completion, Completion.id == RankingItem.completion_id)
        .where(RankingItem.ranking_id.in_([ranking.id for ranking, _ in rows]))
        .order_by(RankingItem.rank, Completion.text)
    ):
        items.setdefault(item.ranking_id, []).append(
            {
                "completion": completion_text,
                "rank": item.rank,
                "quality": item.quality,
                "flags": item.flags,
                "is_safe": item.is_safe,
                "note": item.note,
            }
        )
    return [
        {
            "id": ranking.id,
            "prompt": messages,
            "completions": items.get(ranking.id, []),
            "strength": ranking.strength,
            "note": ranking.note,
            "active_s": ranking.active_s,
            "idle_s": ranking.idle_s,
            "submitted_at": ranking.submitted_at,
            "retracted_at": ranking.retracted_at,
        }
        for ranking, messages in rows
    ]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
