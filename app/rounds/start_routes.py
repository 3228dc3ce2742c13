"""The form that starts a round: empty, like an earlier round, or as it was sent and could not be started."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from sqlalchemy.orm import Session

from app.db import SessionDep, clock
from app.errors import PodiumError, status_of
from app.pages import render
from app.people.access import Access, AdminAccess
from app.policies.models import PolicyVersion
from app.policies.service import current_version, sft_policy_of
from app.projects.models import Project
from app.prompts.models import Split
from app.rounds import service, views
from app.rounds.addresses import SentForm, back_to
from app.rounds.configuration import configure, preset_of
from app.rounds.errors import BadRoundSetting
from app.rounds.estimates import Expectation, expectations
from app.rounds.forms import overrides_of, stage_fields, texts_of
from app.rounds.models import Recipe, Round
from app.rounds.needs import has_demonstrations
from app.rounds.views import LabelsSoFar
from app.settings import Settings
from trainer.settings import SMALL_MODEL_PARAMETERS, Preset

router = APIRouter()

CHECKED = "estimate"  # the form's second button: say what it would take, start nothing


@dataclass(frozen=True)
class StartForm:
    """What stands on the form, as texts."""

    chosen: list[str]
    given: Mapping[str, str]  # "recipe.setting" -> text
    comparisons: str = ""
    like: int | None = None  # the round that it began as
    saw: int | None = None  # the policy version that was current when it was opened


@router.get("/new")
def new_round_page(
    request: Request, access: AdminAccess, session: SessionDep, like: Annotated[int | None, Query(alias="from")] = None
) -> Response:
    """The form that starts a round: everything at its default, or as an earlier round had it."""
    if like is not None:
        return start_page(request, access, session, form_like(service.get_round(session, access.project, like)))
    chosen = [recipe.value for recipe in service.DEFAULT_STAGES]
    if can_demonstrate(session, access):
        chosen.insert(0, Recipe.SFT.value)
    return start_page(request, access, session, StartForm(chosen, {}))


def form_like(round: Round) -> StartForm:
    """The stages and settings of an earlier round; its labels are of its time and stay there."""
    return StartForm(
        chosen=[stage.recipe.value for stage in round.stages],
        given=texts_of(round),
        comparisons=str(round.evaluation_comparisons),
        like=round.number,
    )


@router.post("/new")
def start_round(request: Request, access: AdminAccess, session: SessionDep, sent: SentForm) -> Response:
    """Start the round, or show the form again with every problem beside its field and nothing lost."""
    form = read_form(sent)
    if sent.get("act") == [CHECKED]:
        return start_page(request, access, session, form)
    try:
        with session.begin_nested():  # a refusal must leave nothing behind, and the page still be drawn
            round = service.start_round(
                session,
                access.project,
                stages=form.chosen,
                overrides=overrides_of(access.project, preset_now(session, access), form.chosen, form.given),
                account=access.account,
                now=clock(session),
                evaluation_comparisons=wanted(form.comparisons),
                like=form.like,
                saw_current=form.saw,
            )
    except PodiumError as error:
        return start_page(request, access, session, form, error)
    return back_to(access, round)


def read_form(sent: Mapping[str, list[str]]) -> StartForm:
    def number(name: str) -> int | None:
        text = sent.get(name, [""])[0]
        return int(text) if text.isascii() and text.isdigit() else None

    return StartForm(
        chosen=sent.get("stages", []),
        given={name: texts[0] for name, texts in sent.items() if "." in name},
        comparisons=sent.get("evaluation_comparisons", [""])[0],
        like=number("from"),
        saw=number("saw"),
    )


def wanted(text: str) -> int | None:
    """How many comparisons a form asks for; None where it leaves that to the project. Raises BadRoundSetting."""
    try:
        return int(text) if text.strip() else None
    except ValueError:
        raise BadRoundSetting({"evaluation_comparisons": "must be a whole number"}) from None


def problems_of(error: PodiumError | None) -> Mapping[str, str]:
    """By field where the error names fields."""
    if error is None:
        return {}
    return error.problems if isinstance(error, BadRoundSetting) else {"round": str(error)}


def preset_now(session: Session, access: Access) -> Preset:
    return preset_of(sft_policy_of(session, current_version(session, access.project)))


def can_demonstrate(session: Session, access: Access) -> bool:
    """Whether there is something to fine-tune on; the loop then begins with it."""
    return all(has_demonstrations(session, access.project, split) for split in (Split.TRAIN, Split.VALIDATION))


def start_page(
    request: Request, access: Access, session: Session, form: StartForm, error: PodiumError | None = None
) -> Response:
    project = access.project
    current = current_version(session, project)
    sft_policy = sft_policy_of(session, current)
    preset = preset_of(sft_policy)
    problems = problems_of(error)
    labels = views.labels_so_far(session, project)
    return render(
        request,
        "rounds/new.html",
        status_code=200 if error is None else status_of(error),
        form=form,
        stages=stage_fields(project, preset, form.chosen, form.given, problems),
        problems=problems,
        preset=preset,
        small_model_parameters=SMALL_MODEL_PARAMETERS,
        sft_policy=sft_policy,
        current=current,
        evaluation_comparisons=form.comparisons or str(project.evaluation_comparisons),
        active=service.active_round(session, project),
        expected=expected_of(request.app.state.settings, session, project, sft_policy, form, labels),
        labels=labels,
    )


def expected_of(
    settings: Settings, session: Session, project: Project, policy: PolicyVersion, form: StartForm, labels: LabelsSoFar
) -> dict[Recipe, Expectation]:
    """What each chosen stage would take; a stage whose settings break a rule is left out."""
    preset = preset_of(policy)
    configurations: dict[Recipe, dict[str, Any]] = {}
    for recipe in (recipe for recipe in Recipe if recipe in form.chosen):
        try:
            overrides = overrides_of(project, preset, [recipe], form.given)
            configurations |= configure(project, [recipe], preset, overrides)
        except BadRoundSetting:
            continue
    found = expectations(session, settings, project, policy, configurations, labels, clock(session))
    return {each.recipe: each for each in found}
