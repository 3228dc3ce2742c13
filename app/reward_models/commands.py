"""`podium reward-model`: reward models, and evaluations of any of them on any snapshot."""

import json
import time
from typing import Annotated, Any

import typer
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import db, terminal
from app.datasets.errors import SnapshotNotFound
from app.datasets.models import Snapshot
from app.projects.models import Project
from app.projects.service import get_project
from app.prompts.models import Split
from app.reward_models import service
from app.reward_models.models import RewardEvaluation
from app.reward_models.service import DEFAULT_SPLITS, ENDED
from app.rounds.models import StageState

reward_model = typer.Typer(
    help="Reward models of a project, and how well any reward model orders what people ranked.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

POLL_S = 1.0
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ProjectOption = Annotated[
    str | None, typer.Option("--project", "-p", help="The project's slug, to name the snapshot by its name.")
]


def register(cli: typer.Typer) -> None:
    """Add this area's commands."""
    cli.add_typer(reward_model, name="reward-model")


@reward_model.command("list")
def list_models(project: Annotated[str, typer.Argument(help="The project's slug.")], as_json: AsJson = False) -> None:
    """Every reward model, the newest first, with its accuracy on the validation split."""
    with terminal.open_session() as session:
        lines = [
            {
                "number": fitted.version.number,
                "round": fitted.round.number,
                "validation_accuracy": fitted.version.figures.get("validation_accuracy"),
                "evaluation": None if fitted.evaluation is None else fitted.evaluation.id,
            }
            for fitted in service.fitted_models(session, get_project(session, project))
        ]
    if as_json:
        terminal.say(json.dumps(lines))
        return
    for line in lines:
        terminal.say(f"reward model {line['number']}  round {line['round']}  {share(line['validation_accuracy'])}")


@reward_model.command("evaluate")
def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A reward model's number, or a folder of the trainer's machine or a Hugging Face name: a sequence"
            " classifier with one label, in safetensors.",
        ),
    ],
    snapshot: Annotated[str, typer.Argument(help="The snapshot's number, or with --project its name.")],
    project: ProjectOption = None,
    split: Annotated[
        list[Split] | None, typer.Option(help="May be given many times; validation and test if left out.")
    ] = None,
    include_learned: Annotated[
        bool, typer.Option("--include-learned", help="Judge prompts too that the model learned from.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the report; exit code 1 if there is none.")] = False,
    as_json: AsJson = False,
) -> None:
    """Judge a reward model by what people ranked: a trainer runs it between stages."""
    with terminal.open_session() as session:
        found, frozen = find_snapshot(session, snapshot, project)
        evaluation = service.request_evaluation(
            session,
            found,
            model=model,
            snapshot_id=frozen.id,
            splits=split or DEFAULT_SPLITS,
            includes_learned=include_learned,
            by=None,
            now=db.clock(session),
        )
        id, choice, slug = evaluation.id, service.choice_of(session, evaluation), found.slug
    if choice.num_learned and not as_json:
        done = "judged all the same" if include_learned else "left out"
        terminal.say(
            f"The model learned from the prompts of {choice.num_learned} of {choice.num_rankings} rankings: {done}."
        )
    if wait:
        follow(id, as_json)
    elif as_json:
        terminal.say(json.dumps({"id": id, "state": "queued"}))
    else:
        terminal.say(f"Evaluation {id} is queued; podium reward-model show {id} tells it, and {page_of(slug, id)}.")


@reward_model.command("show")
def show(
    evaluation: Annotated[int, typer.Argument(help="The evaluation's number.")],
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the report; exit code 1 if there is none.")] = False,
    as_json: AsJson = False,
) -> None:
    """How far an evaluation is, and its figures; with --json the whole report."""
    if wait:
        follow(evaluation, as_json)
        return
    with terminal.open_session() as session:
        say(read(session, evaluation), as_json)


def page_of(slug: str, evaluation_id: int) -> str:
    return f"/projects/{slug}/reward-models/evaluations/{evaluation_id}"


def find_snapshot(session: Session, snapshot: str, slug: str | None) -> tuple[Project, Snapshot]:
    """Raises SnapshotNotFound, ProjectNotFound."""
    query = select(Snapshot)
    if slug is not None:
        query = query.where(Snapshot.project_id == get_project(session, slug).id)
    by_name = slug is not None and not snapshot.isdecimal()
    if not (by_name or snapshot.isdecimal()):
        raise terminal.CannotStart(f"“{snapshot}” is no snapshot's number; to name one, say its --project too")
    query = query.where(Snapshot.name == snapshot if by_name else Snapshot.id == int(snapshot))
    found = session.scalars(query).one_or_none()
    if found is None:
        raise SnapshotNotFound(snapshot)
    return session.get_one(Project, found.project_id), found


def follow(evaluation_id: int, as_json: bool) -> None:
    """Say how far it is until it has ended."""
    said = ""
    with terminal.open_session():
        while True:
            with db.SessionFactory() as session:
                evaluation = read(session, evaluation_id)
            line = progress(evaluation)
            if line != said and not as_json and evaluation.state not in ENDED:
                terminal.say(line)
            said = line
            if evaluation.state in ENDED:
                break
            time.sleep(POLL_S)
    say(evaluation, as_json)
    if evaluation.state != StageState.SUCCEEDED:
        raise SystemExit(terminal.REFUSED)


def read(session: Session, evaluation_id: int) -> RewardEvaluation:
    evaluation = session.get(RewardEvaluation, evaluation_id)
    if evaluation is None:
        raise terminal.CannotStart(f"there is no evaluation {evaluation_id}: podium reward-model evaluate asks for one")
    return evaluation


def progress(evaluation: RewardEvaluation) -> str:
    if evaluation.num_slates is None:
        return f"evaluation {evaluation.id}: {evaluation.state.value}"
    return (
        f"evaluation {evaluation.id}: {evaluation.state.value},"
        f" {evaluation.num_scored} of {evaluation.num_slates} slates scored"
    )


def say(evaluation: RewardEvaluation, as_json: bool) -> None:
    if as_json:
        terminal.say(json.dumps(described(evaluation)))
        return
    if evaluation.report is None:
        terminal.say(progress(evaluation))
        if evaluation.error is not None:
            terminal.say(f"{evaluation.error['message']}: {evaluation.error['advice']}")
        return
    report = evaluation.report
    for title, value in (
        ("accuracy", with_interval(report["accuracy"])),
        ("the longer text wins", with_interval(report["longer"])),
        ("people's own agreement", with_interval(report["ceiling"]["people"])),
        ("share of the ceiling", with_interval(report["ceiling"]["share"])),
    ):
        terminal.say(f"{title + ':':<24}{value}")
    terminal.say(f"{'comparisons:':<24}{report['num_comparisons']} of {report['num_rankings']} rankings")


def described(evaluation: RewardEvaluation) -> dict[str, Any]:
    return {
        "id": evaluation.id,
        "state": evaluation.state.value,
        "num_scored": evaluation.num_scored,
        "num_slates": evaluation.num_slates,
        "error": evaluation.error,
        "report": evaluation.report,
    }


def share(value: float | None) -> str:
    return "not known" if value is None else f"{100 * value:.1f} %"


def with_interval(estimate: dict[str, Any]) -> str:
    if estimate["low"] is None or estimate["low"] == estimate["high"]:  # an interval of no width claims to be sure
        return share(estimate["value"]) + (f" ({estimate['reason']})" if estimate["value"] is None else "")
    return f"{share(estimate['value'])} ({share(estimate['low'])} to {share(estimate['high'])})"
