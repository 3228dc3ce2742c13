"""The erasure of a person: one transaction that does all of it or nothing. Never commits.

What is append-only for everybody else is let go by triggers, for the labelers whom the erasure's row names and in its
own transaction alone (migration 0021).
"""

import re
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, cast, delete, func, or_, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from app.datasets.models import DatasetImport
from app.labeling.models import (
    Completion,
    Demonstration,
    Draft,
    Lease,
    LeaseEnd,
    Ranking,
    RankingItem,
    Retraction,
    Slate,
    SlateState,
)
from app.labeling.task_models import ConversationTurn, Writing, WritingEnd
from app.people import accounts
from app.people.models import (
    Account,
    APIKey,
    AuditEvent,
    Invitation,
    Labeler,
    Membership,
    PasswordReset,
    SignInAttempt,
    SignInSession,
    SignOnIdentity,
)
from app.people.service import audit
from app.privacy.errors import AlreadyErased, LearningUnderWay, NotConfirmed
from app.privacy.findings import Doomed, Findings, Subject, doomed_by, findings_on, slates_with_texts_by
from app.privacy.models import DoomedFolder, ErasedLabeler, Erasure, Extent, RedactedResult
from app.privacy.redactions import redact_snapshots
from app.privacy.reward_reports import evaluation_under_way, forget_labelers, models_judged_on
from app.projects.models import Project
from app.prompts.models import Prompt
from app.quality.entry_models import Onboarding, OnboardingAnswer, ReferenceRanking
from app.quality.models import Adjudication, QualityAction, RankingDigest
from app.rounds.models import ModelRequest, Round, Stage, StageSample
from app.rounds.service import active_round

ERASED = "[erased]"
WORDS_IN_HISTORY = ("reason", "name", "email", "said")  # of a detail in the audit log: what people typed, or are called


def erase(
    session: Session, subject: Subject, extent: Extent, *, confirmation: str, by: Account, now: datetime
) -> Erasure:
    """Erase who the person is, and, as far as the extent says, what they gave.

    The folders that hold copies are written down to be removed once this is committed (app.privacy.removal).
    Raises NotConfirmed, AlreadyErased, LearningUnderWay, LastAdmin, LastSiteAdmin.
    """
    if confirmation.strip() != subject.confirmation:
        raise NotConfirmed(subject.confirmation)
    _lock_slates(session, subject.labeler_ids)
    projects = _lock(session, subject)
    if extent is Extent.LABELS:
        for project in projects:  # nobody starts a round or an evaluation from here on: the project is locked
            if (active := active_round(session, project)) is not None:
                raise LearningUnderWay(project.name, f"round {active.number}")
            if (waiting := evaluation_under_way(session, project)) is not None:
                raise LearningUnderWay(project.name, f"evaluation {waiting} of a reward model")
    doomed = doomed_by(session, subject.labeler_ids)  # read under the locks: no ranking comes to these slates now
    findings = findings_on(session, subject, doomed)
    erasure = _write_down(session, subject, extent, findings, by=by)
    _blank_words(session, subject, now)
    _blank_history(session, subject)  # found by the address, which goes after
    if subject.account is not None:
        _erase_account(session, subject.account, by=by, now=now)
    if extent is Extent.LABELS:
        redact_snapshots(session, erasure, findings.snapshots, doomed, now=now)
        forget_labelers(session, [snapshot.id for snapshot in findings.snapshots], subject.labelers)
        _erase_labels(session, doomed, by=by, now=now)
        session.add_all(DoomedFolder(erasure_id=erasure.id, folder=folder) for folder in findings.folders)
        session.add_all(
            RedactedResult(erasure_id=erasure.id, reward_model_id=model.id, folder=model.source)
            for model in models_judged_on(session, [snapshot.id for snapshot in findings.snapshots])
        )
    for labeler in subject.labelers:
        labeler.account_id, labeler.external_id, labeler.erased_at = None, None, labeler.erased_at or now
    logs: list[int | None] = [project.id for project in projects]
    for project_id in logs or [None]:
        audit(session, by.id, "person.erase", f"erasure:{erasure.id}", project_id, **_said(extent, findings))
    session.flush()
    return erasure


def _lock_slates(session: Session, labelers: Sequence[int]) -> None:
    """The slates that go or that they work on, in the order of their ids, then what they hold of these.

    Whoever submits locks a slate and a lease first, and what else they need after: so do we.
    """
    held = _unsubmitted(labelers)
    drafted = select(Draft.slate_id).where(Draft.labeler_id.in_(labelers))
    wanted = slates_with_texts_by(labelers).union(select(Lease.slate_id).where(held), drafted)
    session.execute(select(Slate.id).where(Slate.id.in_(wanted)).order_by(Slate.id).with_for_update(key_share=True))
    session.execute(select(Lease.id).where(held).order_by(Lease.id).with_for_update())


def _unsubmitted(labelers: Sequence[int]) -> ColumnElement[bool]:
    """Their leases that a draft or a ranking may still come to: late work is taken too."""
    return Lease.labeler_id.in_(labelers) & or_(Lease.closed_at.is_(None), Lease.end == LeaseEnd.EXPIRED)


def _lock(session: Session, subject: Subject) -> Sequence[Project]:
    """The projects, then the labelers, then the account: in the order of those who freeze and start rounds.

    Raises AlreadyErased if somebody else was quicker.
    """
    projects = session.scalars(
        select(Project)
        .where(Project.id.in_([labeler.project_id for labeler in subject.labelers]))
        .order_by(Project.id)
        .with_for_update(key_share=True)
    ).all()
    session.scalars(
        select(Labeler)
        .where(Labeler.id.in_(subject.labeler_ids))
        .order_by(Labeler.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).all()
    if subject.account is not None:
        session.refresh(subject.account, with_for_update=True)
        if subject.account.erased_at is not None:
            raise AlreadyErased
    return projects


def _write_down(session: Session, subject: Subject, extent: Extent, findings: Findings, *, by: Account) -> Erasure:
    erasure = Erasure(
        extent=extent,
        account_id=None if subject.account is None else subject.account.id,
        by_account_id=by.id,
        at=func.now(),  # of the transaction: with its number, what the triggers ask for
        transaction_id=session.scalars(text("SELECT pg_current_xact_id()::text")).one(),
        report=findings.as_json(),
    )
    session.add(erasure)
    session.flush()
    session.add_all(ErasedLabeler(labeler_id=labeler_id, erasure_id=erasure.id) for labeler_id in subject.labeler_ids)
    session.flush()
    return erasure


def _said(extent: Extent, findings: Findings) -> dict[str, Any]:
    """What the audit log says: numbers and snapshots, and nothing that leads to the person."""
    if extent is Extent.LINK:
        return {"extent": extent.value}
    touched = [{"id": snapshot.id, "sha256": snapshot.sha256} for snapshot in findings.snapshots]
    counts = {name: value for name, value in findings.as_json().items() if name.startswith("num_") and value}
    return {"extent": extent.value, "snapshots": touched, **counts}


def _erase_account(session: Session, account: Account, *, by: Account, now: datetime) -> None:
    """Close it, and leave a number in the place of name and address.  Raises LastAdmin, LastSiteAdmin."""
    accounts.close(session, account, by=by, now=now)
    for table in (SignInSession, APIKey, PasswordReset, SignOnIdentity, Membership):
        session.execute(delete(table).where(table.account_id == account.id))
    session.execute(delete(SignInAttempt).where(SignInAttempt.email == account.email))
    is_theirs = or_(Invitation.email == account.email, Invitation.accepted_by == account.id)
    session.execute(update(Invitation).where(is_theirs).values(email=None, revoked_at=_unless_used(now)))
    account.email, account.name = f"erased-{account.id}@erased.invalid", "Erased person"
    account.password_hash, account.is_site_admin, account.erased_at = None, False, now
    session.flush()


def _unless_used(now: datetime) -> Any:
    """An open invitation that named the address would be anybody's without it."""
    return func.coalesce(Invitation.revoked_at, now)


def _blank_words(session: Session, subject: Subject, now: datetime) -> None:
    """Notes, reasons and drafts: free text, in which people write about themselves, and others about them."""
    labelers = subject.labeler_ids
    theirs = select(Ranking.id).where(Ranking.labeler_id.in_(labelers))
    for statement in (
        update(RankingItem).where(RankingItem.ranking_id.in_(theirs), RankingItem.note.is_not(None)).values(note=None),
        update(Ranking).where(Ranking.labeler_id.in_(labelers), Ranking.note.is_not(None)).values(note=None),
        update(Lease).where(Lease.labeler_id.in_(labelers), Lease.reason.is_not(None)).values(reason=None),
        update(Lease)
        .where(_unsubmitted(labelers))
        .values(closed_at=func.coalesce(Lease.closed_at, now), end=LeaseEnd.RETIRED),
        delete(Draft).where(Draft.labeler_id.in_(labelers)),
        update(Writing)
        .where(Writing.labeler_id.in_(labelers), Writing.closed_at.is_(None))
        .values(closed_at=now, end=WritingEnd.SKIPPED),
        update(Writing).where(Writing.labeler_id.in_(labelers)).values(content={}, reason=None),
        update(QualityAction).where(QualityAction.labeler_id.in_(labelers)).values(reason=ERASED),
        delete(ModelRequest).where(ModelRequest.input["labeler_id"].as_integer().in_(labelers)),  # what they typed
    ):
        session.execute(statement.execution_options(synchronize_session=False))
    if (account := subject.account) is not None:
        _unname_stopped_imports(session, account.name)
        for table in (Adjudication, ReferenceRanking):  # what was decided stays, as an act of the project
            session.execute(
                update(table)
                .where(table.account_id == account.id)
                .values(reason=ERASED)
                .execution_options(synchronize_session=False)
            )


def _unname_stopped_imports(session: Session, name: str) -> None:
    """An import that was stopped said by whom, where researchers read it: the audit log does, and is enough."""
    by_them = [{"line": None, "reason": f"stopped by {name}"}]
    session.execute(
        update(DatasetImport)
        .where(DatasetImport.problems == cast(by_them, JSONB))
        .values(problems=[{"line": None, "reason": "stopped by a person"}])
        .execution_options(synchronize_session=False)
    )


def _blank_history(session: Session, subject: Subject) -> None:
    """What the audit log says of them in words: what was typed about them, and what they are called."""
    detail = AuditEvent.detail
    told_of: ColumnElement[bool] = AuditEvent.subject.in_(f"labeler:{id}" for id in subject.labeler_ids)
    if (account := subject.account) is not None:
        is_key = AuditEvent.action.startswith("key.")
        is_theirs = or_(AuditEvent.account_id == account.id, detail["account"].astext == f"account:{account.id}")
        names_them = or_(detail["email"].astext == account.email, func.strpos(detail["said"].astext, account.email) > 0)
        told_of = or_(told_of, AuditEvent.subject == f"account:{account.id}", is_key & is_theirs, names_them)
    words = ", ".join(f"'{word}'" for word in WORDS_IN_HISTORY)
    session.execute(
        update(AuditEvent)
        .where(told_of, or_(*(detail.has_key(word) for word in WORDS_IN_HISTORY)))
        .values(detail=text(f"audit_event.detail - ARRAY[{words}]"))
        .execution_options(synchronize_session=False)
    )


def _erase_labels(session: Session, doomed: Doomed, *, by: Account, now: datetime) -> None:
    """Everything that the labelers gave, in an order in which nothing is left that points to it."""
    _take_back_others(session, doomed, by=by, now=now)
    theirs = select(Ranking.id).where(Ranking.labeler_id.in_(doomed.labelers))
    writings = select(Writing.id).where(Writing.labeler_id.in_(doomed.labelers))
    _erase_texts(session, doomed, now)
    # Before their rankings' rows, as submitters lock them: what is left on each is compared again when the rows go.
    ranked = select(Ranking.slate_id).where(Ranking.labeler_id.in_(doomed.labelers))
    session.execute(select(Slate.id).where(Slate.id.in_(ranked)).order_by(Slate.id).with_for_update(key_share=True))
    for statement in (
        delete(ConversationTurn).where(ConversationTurn.writing_id.in_(writings)),
        delete(Demonstration).where(Demonstration.id.in_(doomed.demonstrations)),
        delete(Writing).where(Writing.labeler_id.in_(doomed.labelers)),
        delete(OnboardingAnswer).where(OnboardingAnswer.labeler_id.in_(doomed.labelers)),
        delete(Onboarding).where(Onboarding.labeler_id.in_(doomed.labelers)),
        delete(RankingDigest).where(RankingDigest.ranking_id.in_(theirs)),
        delete(RankingItem).where(RankingItem.ranking_id.in_(theirs)),
        delete(Retraction).where(Retraction.ranking_id.in_(theirs)),
        delete(Ranking).where(Ranking.labeler_id.in_(doomed.labelers)),
        delete(Lease).where(Lease.labeler_id.in_(doomed.labelers)),
        delete(QualityAction).where(QualityAction.labeler_id.in_(doomed.labelers)),
    ):
        session.execute(statement.execution_options(synchronize_session=False))


def _take_back_others(session: Session, doomed: Doomed, *, by: Account, now: datetime) -> None:
    """Rankings and answers of others to a text that is no more: they stay on record, and nobody learns from them."""
    session.execute(
        update(Ranking)
        .where(Ranking.id.in_(doomed.others_rankings))
        .values(retracted_at=now)
        .execution_options(synchronize_session=False)
    )
    session.add_all(Retraction(ranking_id=id, account_id=by.id, retracted_at=now) for id in doomed.others_rankings)
    session.execute(
        update(Demonstration)
        .where(Demonstration.id.in_(doomed.others_demonstrations))
        .values(retracted_at=now)
        .execution_options(synchronize_session=False)
    )
    session.flush()


def _erase_texts(session: Session, doomed: Doomed, now: datetime) -> None:
    """Prompts and answers that the person wrote, wherever they are shown; nobody is given such a slate any more."""
    replies = Completion.slate_id.in_(select(Slate.id).where(Slate.prompt_id.in_(doomed.prompts)))
    copies = Completion.demonstration_id.in_(doomed.demonstrations)
    for statement in (
        update(Slate)
        .where(Slate.id.in_(doomed.slates), Slate.state != SlateState.RETIRED)
        .values(state=SlateState.RETIRED, retired_at=now, owner=None, deadline=None),
        update(Lease)  # of others: their pages tell them that the slate is gone
        .where(Lease.slate_id.in_(doomed.slates), or_(Lease.closed_at.is_(None), Lease.end == LeaseEnd.EXPIRED))
        .values(closed_at=func.coalesce(Lease.closed_at, now), end=LeaseEnd.RETIRED),
        delete(Draft).where(Draft.slate_id.in_(doomed.slates)),
        update(Completion)
        .where(or_(replies, copies))
        .values(text=ERASED, token_ids=None, facts={}, external_id=None, demonstration_id=None),
    ):
        session.execute(statement.execution_options(synchronize_session=False))
    for prompt in session.scalars(select(Prompt).where(Prompt.id.in_(doomed.prompts))):
        _forget_samples(session, prompt)
        prompt.messages = [{"role": "user", "content": ERASED}]
        prompt.text_hash, prompt.group_key = secrets.token_bytes(32), f"erased-{secrets.token_hex(8)}"
        prompt.set_aside_at, prompt.set_aside_reason = prompt.set_aside_at or now, "erased"
    session.flush()


def _forget_samples(session: Session, prompt: Prompt) -> None:
    """What a policy wrote to the prompt while it trained stands beside it in the round's live page."""
    last_turn = str(prompt.messages[-1]["content"]).strip()
    could_show_it = (
        select(Stage.id)
        .join(Round, Round.id == Stage.round_id)
        .where(Round.project_id == prompt.project_id, Stage.started_at >= prompt.created_at)
    )
    key = (StageSample.stage_id, StageSample.step, StageSample.position)
    with_its_words = session.execute(
        select(*key, StageSample.prompt).where(
            StageSample.stage_id.in_(could_show_it), func.strpos(StageSample.prompt, last_turn) > 0
        )
    )
    # A whole turn, as people read it or as a chat template writes it: a short one stands within many others.
    turn = re.compile(rf"(?:\A|\n|: |\]|>)\s*{re.escape(last_turn)}\s*(?:\Z|\n|<|\[|assistant)")
    for *where, shown in with_its_words.all():
        if turn.search(shown):
            session.execute(
                delete(StageSample).where(tuple_(*key) == tuple(where)).execution_options(synchronize_session=False)
            )
