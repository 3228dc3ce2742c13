"""A new project in steps: what is asked in each, what is wrong with it, and the one act that makes it all.

What was given travels with the form from step to step, as texts, and nothing is stored before the last one: whoever
goes back, or leaves, has lost or made nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from app.datasets.errors import ImportRefused
from app.db import clock
from app.people.models import Account
from app.policies.service import InspectedPolicy
from app.projects import service
from app.projects.errors import BadProjectSetting, PolicyNotUsable, SlugTaken
from app.projects.inspection import Inspections
from app.projects.models import DEFAULT_FLAGS, Project
from app.projects.new_prompts import check_prompts, preview, store_prompts
from app.projects.settings import (
    MIXTURE_SOURCES,
    SETTINGS,
    crossed_limits,
    read_mixture,
    read_settings,
)

Given = Mapping[str, str]  # the form's fields as texts
Problems = dict[str, str]  # field -> what is wrong with it

GUIDELINES = """# What we look for

You see several replies to the same request. Put them in the order in which you would like to get them yourself. Equal
replies may share a rank.

**A good reply**

1. **does what was asked**, and keeps to every constraint in the request.
2. **is true.** What it says can be checked; where it is not sure, it says so.
3. **does no harm.** It helps nobody to hurt others or themselves, and denigrates nobody.
4. **is clear and finished**, and as long as it needs to be: neither a brush-off nor a lecture.

**When these pull in different directions**, harmlessness and truth come before helpfulness, and that before style.

**Please do not** guess who or what wrote a reply, and do not rank by length. If a slate cannot be judged, say so with
“cannot be ranked” and a reason; if you would rather not judge it, skip it.
"""


@dataclass(frozen=True)
class Step:
    """One page of the wizard. fields: what is given on it; the other steps carry them along unseen."""

    key: str
    title: str
    fields: tuple[str, ...]


ASKED = ("asks_quality", "full_form_share", "allows_equal", "asks_safety")
SHAPED = ("min_k", "max_k", "overlap", "max_prompt_tokens", "max_completion_tokens")
DECIDED = ("evaluation_comparisons", "promotes_at_lower_bound")
MIXED = tuple(
    f"mixture.{source}.{field}"
    for source in MIXTURE_SOURCES
    for field in ("weight", "temperature", "top_p")
    if source != "demonstration" or field == "weight"  # a person's text was not sampled
)
STEPS = (
    Step("policy", "Policy", ("name", "slug", "policy", "source", "inspection")),
    Step("prompts", "Prompts", ("prompts", "prompts_text", "prompts_file", "prompts_name")),
    Step("guidelines", "Guidelines", ("guidelines",)),
    Step("questions", "Questions", (*ASKED, "flags")),
    Step("slates", "Slates and rounds", (*SHAPED, *MIXED, *DECIDED)),
    Step("summary", "Summary", ()),
)
FIELDS = tuple(field for step in STEPS for field in step.fields)


def beginnings() -> dict[str, str]:
    """What the form holds before anything is given: the defaults of the database, and guidelines to edit."""
    return dict.fromkeys(FIELDS, "") | {
        **{name: default_text(name) for name in (*ASKED, *SHAPED, *DECIDED)},
        "policy": "starter",
        "prompts": "later",
        "guidelines": GUIDELINES,
        "flags": "\n".join(DEFAULT_FLAGS),
        "mixture.current.weight": "1",
        "mixture.current.temperature": "1",
        "mixture.current.top_p": "1",
    }


def default_text(setting: str) -> str:
    """The column's default as the form writes it."""
    default: Any = Project.__table__.c[setting].server_default
    return "" if default is None else f"{default.arg.text}".strip("'")


def step_of(key: str) -> Step:
    """The step of this name; the first one for any other."""
    return next((step for step in STEPS if step.key == key), STEPS[0])


def after(step: Step) -> Step:
    return STEPS[min(STEPS.index(step) + 1, len(STEPS) - 1)]


def before(step: Step) -> Step:
    return STEPS[max(STEPS.index(step) - 1, 0)]


def first_problem(session: Session, given: Given, inspections: Inspections) -> tuple[Step, Problems] | None:
    """The first step with something wrong in it, and what; None when the project can be made."""
    for step in STEPS:
        if problems := problems_of(session, step, given, inspections):
            return step, problems
    return None


def problems_of(session: Session, step: Step, given: Given, inspections: Inspections) -> Problems:
    """What is wrong with what was given on this step."""
    check = CHECKS.get(step.key)
    return check(session, given, inspections) if check else {}


def check_policy(session: Session, given: Given, inspections: Inspections) -> Problems:
    problems = {}
    for check, field in ((service.check_name, "name"), (service.check_slug, "slug")):
        try:
            check(session, given[field])
        except BadProjectSetting as error:
            problems[field] = f"{field} {error.rule}" if field == "name" else f"The short name {error.rule}"
        except SlugTaken as error:
            problems[field] = str(error)
    if not problems:  # before the slow look at the policy
        try:
            inspections.policy(given)
        except PolicyNotUsable as error:
            problems["source"] = str(error)
    return problems


def check_the_prompts(session: Session, given: Given, inspections: Inspections) -> Problems:
    if (problems := check_prompts(given)) or given["prompts"] == "later":
        return problems
    try:
        preview(session, given, clock(session))
    except ImportRefused as error:
        return {"prompts": str(error)}
    return {}


def check_guidelines(session: Session, given: Given, inspections: Inspections) -> Problems:
    return {} if given["guidelines"].strip() else {"guidelines": "Say what labelers look for."}


def check_questions(session: Session, given: Given, inspections: Inspections) -> Problems:
    return read_settings({name: given[name] for name in ASKED})[1]


def check_slates(session: Session, given: Given, inspections: Inspections) -> Problems:
    values, problems = read_settings({name: given[name] for name in (*SHAPED, *DECIDED)})
    try:
        read_mixture(mixture_rows(given))
    except BadProjectSetting as error:
        problems["mixture"] = f"The mixture {error.rule}"
    if problems:
        return problems
    problems = crossed_limits(Project(gold_share=0, repeat_share=0, **values))
    try:
        policy = inspections.policy(given)
    except PolicyNotUsable as error:  # it was looked at long ago, and nobody looks now
        return {**problems, "source": str(error)}
    longest = values["max_prompt_tokens"] + values["max_completion_tokens"]
    if longest > policy.context_tokens:
        problems["max_prompt_tokens"] = (
            f"Prompt and completion together may be {longest} tokens, and the policy reads no more than"
            f" {policy.context_tokens}: make one of them shorter"
        )
    return problems


CHECKS: dict[str, Callable[[Session, Given, Inspections], Problems]] = {
    "policy": check_policy,
    "prompts": check_the_prompts,
    "guidelines": check_guidelines,
    "questions": check_questions,
    "slates": check_slates,
}


def mixture_rows(given: Given) -> list[dict[str, str]]:
    return [
        {"source": source}
        | {field: given.get(f"mixture.{source}.{field}", "") for field in ("weight", "temperature", "top_p")}
        for source in MIXTURE_SOURCES
    ]


def create(session: Session, given: Given, policy: InspectedPolicy, *, account: Account, now: datetime) -> Project:
    """Make the project with its settings, guidelines and prompts: all of it, or nothing when anything is refused.

    given: without problems.  Raises SlugTaken when somebody was quicker, ImportRefused.
    """
    values, _ = read_settings({name: given[name] for name in (*ASKED, *SHAPED, *DECIDED)})
    with session.begin_nested():
        project = service.create_project(
            session,
            slug=given["slug"],
            name=given["name"],
            policy=policy,
            guidelines=given["guidelines"].replace("\r\n", "\n").strip(),
            created_by=account,
            now=now,
            mixture=read_mixture(mixture_rows(given)),
            flags=[line.strip() for line in given["flags"].splitlines() if line.strip()],
            **values,
        )
        store_prompts(session, project, given, account=account, now=now)
    return project


def labels() -> dict[str, str]:
    """What the settings are called, by name."""
    return {name: SETTINGS[name].label for name in (*ASKED, *SHAPED, *DECIDED)}
