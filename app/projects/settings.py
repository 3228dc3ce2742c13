"""What an admin may decide about a project, each setting checked where it is read; the form is made from it too."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from app.projects.errors import BadProjectSetting
from app.projects.models import Project

SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
TASKS = ("rank", "compare", "answer", "write", "converse")
MIXTURE_SOURCES = ("current", "previous", "sft", "demonstration")


@dataclass(frozen=True)
class ProjectSetting:
    """One number, share or yes-or-no of a project. optional: empty means none."""

    name: str
    kind: Literal["int", "float", "bool"]
    label: str
    help: str
    minimum: float = 0
    maximum: float | None = None
    optional: bool = False


@dataclass(frozen=True)
class SettingGroup:
    """Settings that are decided together."""

    title: str
    settings: tuple[ProjectSetting, ...]


GROUPS = (
    SettingGroup(
        "Slates",
        (
            ProjectSetting("min_k", "int", "Fewest completions on a slate", "K is drawn from this range.", 4, 9),
            ProjectSetting(
                "max_k", "int", "Most completions on a slate", "InstructGPT showed 4 to 9 (arXiv:2203.02155).", 4, 9
            ),
            ProjectSetting(
                "queue_target",
                "int",
                "Slates kept ready",
                "The sampler writes ahead of the labelers, so that nobody waits for a model.",
                0,
                100_000,
            ),
            ProjectSetting(
                "overlap",
                "int",
                "Rankings per slate",
                "From so many different labelers. Applies to new slates.",
                1,
                100,
            ),
            ProjectSetting(
                "lease_duration_s",
                "int",
                "Lease, in seconds",
                "How long a slate stays with a labeler whose page is closed.",
                60,
                86_400,
            ),
            ProjectSetting(
                "max_prompt_tokens", "int", "Longest prompt, in tokens", "Longer prompts are set aside.", 1, 1_000_000
            ),
            ProjectSetting(
                "max_completion_tokens",
                "int",
                "Longest completion, in tokens",
                "Sampling stops there, on slates and in rounds.",
                1,
                1_000_000,
            ),
        ),
    ),
    SettingGroup(
        "The ranking page",
        (
            ProjectSetting(
                "asks_quality", "bool", "Ask for a quality from 1 to 7", "As InstructGPT did, beside the rank."
            ),
            ProjectSetting(
                "full_form_share",
                "float",
                "Share of slates with the full form",
                "The rest ask for the ranking alone; WebGPT asked everything on 0.1.",
                0,
                1,
            ),
            ProjectSetting(
                "allows_equal",
                "bool",
                "Two completions may be about equal",
                "Else whoever is unsure still leans to one side: eight answers in place of seven.",
            ),
            ProjectSetting(
                "asks_safety",
                "bool",
                "Ask which of two completions are safe",
                "Beside the better one, as Llama 2 did (arXiv:2307.09288, section 3.2.1).",
            ),
        ),
    ),
    SettingGroup(
        "Labelers' own statistics",
        (
            ProjectSetting(
                "shows_agreement",
                "bool",
                "Show labelers how often they agree with others",
                "On their own page, once there is enough that nobody's single ranking can be told from it.",
            ),
        ),
    ),
    SettingGroup(
        "Getting in, and known answers",
        (
            ProjectSetting(
                "onboarding_threshold",
                "float",
                "Agreement to get in",
                "Share of pairs that a newcomer orders as the researchers did on the onboarding slates, ties half."
                " InstructGPT asked about 0.75.",
                0,
                1,
            ),
            ProjectSetting(
                "onboarding_tries", "int", "Tries to get in", "After the last one an admin decides.", 1, 100
            ),
            ProjectSetting(
                "shared_share",
                "float",
                "Share of shared slates",
                "So many new slates are ranked by several people, to measure how far they agree.",
                0,
                1,
            ),
            ProjectSetting(
                "shared_overlap", "int", "Rankings per shared slate", "From so many different labelers.", 2, 100
            ),
            ProjectSetting(
                "gold_share",
                "float",
                "Share of gold slates",
                "Of the slates given out, so many have a known answer, where there is one that the labeler has not"
                " met. Nothing on the page tells.",
                0,
                1,
            ),
            ProjectSetting(
                "repeat_share",
                "float",
                "Share of repeats",
                "Of the slates given out, so many are ones that the labeler ranked long ago, to see drift.",
                0,
                1,
            ),
            ProjectSetting(
                "repeat_after_days", "int", "Days before a repeat", "A slate is repeated no earlier.", 1, 10_000
            ),
        ),
    ),
    SettingGroup(
        "What is asked next",
        (
            ProjectSetting(
                "disagreement_share",
                "float",
                "Share of slates chosen by disagreement",
                "So many new slates are those on whose order the reward models disagree most (arXiv:1706.03741); the"
                " rest are drawn at random and marked, so that what choosing does can be measured. Takes effect once a"
                " round has fitted several: reward.num_members above 1, with reward.tuning=lora.",
                0,
                1,
            ),
            ProjectSetting(
                "asking_candidates",
                "int",
                "Slates sampled for each that is chosen",
                "More find more disagreement, and cost the sampler as much more.",
                2,
                8,
            ),
        ),
    ),
    SettingGroup(
        "Writing",
        (
            ProjectSetting(
                "offers_suggestions",
                "bool",
                "Offer suggestions of the current policy",
                "To who writes, by a button; the data says where one was used.",
            ),
        ),
    ),
    SettingGroup(
        "Rounds",
        (
            ProjectSetting(
                "evaluation_comparisons",
                "int",
                "Most blind comparisons at a round's end",
                "They end as soon as they decide: of 500, a policy that 60 % prefer takes about 200. 0 asks nobody.",
                0,
                10_000,  # which tell one point of win rate; each submit counts all that are in
            ),
            ProjectSetting(
                "worthwhile_win_rate",
                "float",
                "Win rate worth having",
                "Comparisons end too when the whole 95 % interval lies below it: not better enough. At 0.5, or what"
                " promotes by itself if that is more, they do so only when the new policy is no better.",
                0,
                1,
            ),
            ProjectSetting(
                "promotes_at_lower_bound",
                "float",
                "Promote by itself above",
                "When the whole 95 % interval of the win rate, which holds however often one looks, lies above it."
                " Empty: comparisons end when it lies above one half, and a person promotes.",
                0,
                1,
                optional=True,
            ),
        ),
    ),
)
SETTINGS = {setting.name: setting for group in GROUPS for setting in group.settings}


def read_setting(setting: ProjectSetting, given: str | float | bool | None) -> int | float | bool | None:
    """The value in its type. Raises BadProjectSetting with the rule it breaks."""
    if setting.kind == "bool":
        return str(given).lower() in ("true", "on", "1", "yes")
    text = "" if given is None else str(given).strip()
    if not text and setting.optional:
        return None
    kind = "a whole number" if setting.kind == "int" else "a number"
    try:
        number = int(text) if setting.kind == "int" else float(text)
    except ValueError:
        raise BadProjectSetting(setting.name, f"must be {kind}") from None
    if not setting.minimum <= number or (setting.maximum is not None and not number <= setting.maximum):
        limits = f"from {setting.minimum:g} to {setting.maximum:g}" if setting.maximum is not None else "larger"
        raise BadProjectSetting(setting.name, f"must be {kind} {limits}")
    return number


def read_settings(given: Mapping[str, str | float | bool | None]) -> tuple[dict[str, Any], dict[str, str]]:
    """The values of the settings that were given, and what is wrong, by setting."""
    values: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for name, text in given.items():
        try:
            values[name] = read_setting(SETTINGS[name], text)
        except BadProjectSetting as error:
            problems[name] = error.rule
    return values, problems


def crossed_limits(project: Project) -> dict[str, str]:
    """Rules between settings, which the database holds too, by the setting that breaks them."""
    crossed = {}
    if project.min_k > project.max_k:
        crossed["max_k"] = "must not be below the fewest"
    if project.gold_share + project.repeat_share > 1:
        crossed["repeat_share"] = "must leave room beside the gold slates: together no more than 1"
    return crossed


def read_task_weights(given: Mapping[str, str]) -> dict[str, float]:
    """How often each task is drawn; one without a weight is not on offer. Raises BadProjectSetting."""
    weight = ProjectSetting("task_weights", "float", "", "", 0, 1000)
    weights = {task: float(read_setting(weight, given.get(task) or "0") or 0) for task in TASKS}
    weights = {task: value for task, value in weights.items() if value}
    if not weights:
        raise BadProjectSetting("task_weights", "needs a task with a weight above 0")
    return weights


def read_mixture(rows: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Who writes the completions of a slate, and how. rows: source, weight, temperature, top_p as texts.

    A weight of 0, or none, leaves a source out. Raises BadProjectSetting.
    """
    mixture = []
    for row in rows:
        source = row["source"]
        if source not in MIXTURE_SOURCES:
            raise BadProjectSetting("mixture", f"knows no source {source!r}")
        weight = read_setting(ProjectSetting("weight", "float", "Mixture", "", 0, 1000), row.get("weight") or "0")
        if not weight:
            continue
        temperature = read_setting(
            ProjectSetting("t", "float", "Temperature", "", 0, 10), row.get("temperature") or "1"
        )
        top_p = read_setting(ProjectSetting("p", "float", "Top-p", "", 0, 1), row.get("top_p") or "1")
        if not top_p or not temperature:
            # Greedy completions of one prompt are all the same: no slate could be made of them.
            raise BadProjectSetting("mixture", "needs a temperature and a top-p above 0")
        mixture.append({"source": source, "weight": weight, "temperature": temperature, "top_p": top_p})
    if not any(entry["source"] != "demonstration" for entry in mixture):
        raise BadProjectSetting("mixture", "needs a policy with a weight above 0")
    return mixture
