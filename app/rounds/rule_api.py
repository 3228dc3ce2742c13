"""The rule for rounds as programs read and write it."""

from fastapi import APIRouter
from sqlalchemy.orm import Session

from app.db import SessionDep, clock
from app.people.access import AdminAccess, ResearcherAccess
from app.people.models import Account
from app.projects.models import Project
from app.rounds import rules
from app.rounds.errors import NoRule
from app.rounds.schemas import RuleIn, RuleOut, rule_out

api = APIRouter(prefix="/projects/{slug}/round-rule", tags=["rounds"])


@api.get("")
def get_rule(access: ResearcherAccess, session: SessionDep) -> RuleOut:
    """The rule, and how far it is from its next round."""
    return rule_now(session, access.project)


@api.put("")
def put_rule(access: AdminAccess, session: SessionDep, form: RuleIn) -> RuleOut:
    """Make it the project's rule. Whoever writes it has looked at what failed: it is on, unless it is to be paused."""
    return write(session, access.project, form, account=access.account)


def write(session: Session, project: Project, form: RuleIn, *, account: Account | None) -> RuleOut:
    """The rule as it is written. account: None on the command line.  Raises what rules.write_rule does."""
    now = clock(session)
    rules.write_rule(session, project, **form.model_dump(exclude={"is_paused"}), account=account, now=now)
    if form.is_paused:
        rules.pause_rule(session, project, account=account, now=now)
    return rule_now(session, project)


def rule_now(session: Session, project: Project) -> RuleOut:
    """Raises NoRule."""
    rule = rules.rule_of(session, project)
    if rule is None:
        raise NoRule
    return rule_out(rule, rules.standing(session, project, rule, clock(session)))
