"""The forms that start and retry a round, made from the recipes' own settings. Pure: texts in, overrides out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from app.projects.models import Project
from app.rounds.configuration import Overrides, project_defaults
from app.rounds.models import Recipe, Round, Stage
from app.rounds.risks import Risk, risk_of
from trainer.settings import Preset, SettingDescription, Value, describe

# What is changed from round to round; the rest of a form is folded.
COMMON = {
    Recipe.SFT: ("num_epochs", "learning_rate", "batch_size", "tuning"),
    Recipe.REWARD: ("num_epochs", "learning_rate", "batch_size", "labels", "num_members", "tuning"),
    Recipe.PPO: ("num_steps", "kl_coef", "kl_budget", "learning_rate", "batch_size", "max_completion_tokens", "tuning"),
    Recipe.GRPO: ("num_steps", "kl_coef", "kl_budget", "learning_rate", "batch_size", "samples_per_prompt", "tuning"),
    Recipe.REJECTION: ("samples_per_prompt", "num_prompts", "num_epochs", "learning_rate", "kl_budget", "tuning"),
    Recipe.EVALUATE: ("num_prompts", "max_completion_tokens", "best_of"),
}

# What each stage is for, in the words of the page.
PURPOSES = {
    Recipe.SFT: "Learn from demonstrations. Makes the policy that the next stages start from.",
    Recipe.REWARD: "Fit a reward model to all rankings so far.",
    Recipe.PPO: "Improve the policy against the reward model, near where it started.",
    Recipe.GRPO: "Instead of ppo: without a value model, completions of a prompt compared with each other.",
    Recipe.REJECTION: "Instead of ppo: learn from the best of several completions by score.",
    Recipe.EVALUATE: "Judge the new policy against the current one on test prompts.",
}


@dataclass(frozen=True)
class SettingField:
    """One setting on the form. name: "ppo.kl_coef". value: what stands in the field, as text.

    default: what holds when nobody changes it: the preset's or the project's; on a retry, what the stage ran with.
    """

    name: str
    label: str
    kind: str
    help: str
    source: str
    value: str
    default: str
    paper_value: str | None  # where the preset in force differs from the paper's
    choices: tuple[str, ...]
    limits: str
    problem: str | None
    is_common: bool
    risk: Risk | None

    @property
    def is_changed(self) -> bool:
        return self.value.strip() != self.default

    @property
    def is_risky(self) -> bool:
        return self.risk is not None and self.risk.holds(self.value)

    @property
    def stands_out(self) -> bool:
        """Whether it is shown before the folded ones."""
        return self.is_common or self.is_changed or self.problem is not None


@dataclass(frozen=True)
class StageFields:
    """A stage on the form with its settings."""

    recipe: Recipe
    purpose: str
    is_chosen: bool
    fields: list[SettingField]

    @property
    def in_front(self) -> list[SettingField]:
        return [field for field in self.fields if field.stands_out]

    @property
    def folded(self) -> list[SettingField]:
        return [field for field in self.fields if not field.stands_out]

    @property
    def num_changed(self) -> int:
        return sum(field.is_changed for field in self.fields)

    @property
    def has_problem(self) -> bool:
        return any(field.problem for field in self.fields)


def stage_fields(
    project: Project,
    preset: Preset,
    chosen: Iterable[str],
    given: Mapping[str, str],
    problems: Mapping[str, str],
) -> list[StageFields]:
    """The form as it was sent, or as it begins. given and problems: by "recipe.setting"."""
    chosen = set(chosen)
    return [
        StageFields(
            recipe=recipe,
            purpose=PURPOSES[recipe],
            is_chosen=recipe in chosen,
            fields=[
                setting_field(recipe, setting, default_of(project, preset, recipe, setting), preset, given, problems)
                for setting in describe(recipe)
            ],
        )
        for recipe in Recipe
    ]


def setting_field(
    recipe: Recipe,
    setting: SettingDescription,
    default: Value,
    preset: Preset,
    given: Mapping[str, str],
    problems: Mapping[str, str],
) -> SettingField:
    name = f"{recipe}.{setting.name}"
    paper_value = setting.presets["paper"]
    return SettingField(
        name=name,
        label=setting.name.replace("_", " "),
        kind=setting.kind,
        help=setting.help,
        source=setting.paper,
        value=given.get(name, as_text(default)),
        default=as_text(default),
        paper_value=as_text(paper_value) if preset != "paper" and default != paper_value else None,
        choices=("true", "false") if setting.kind == "bool" else setting.choices,
        limits=limits_of(setting),
        problem=problems.get(name),
        is_common=setting.name in COMMON[recipe],
        risk=risk_of(recipe, setting.name, preset),
    )


def retry_fields(stages: Iterable[Stage], given: Mapping[str, str], problems: Mapping[str, str]) -> list[StageFields]:
    """The form that runs stages again: each with the settings it ran with."""
    return [
        StageFields(
            recipe=stage.recipe,
            purpose=PURPOSES[stage.recipe],
            is_chosen=True,
            fields=[
                setting_field(
                    stage.recipe,
                    setting,
                    stage.configuration.get(setting.name, setting.presets[preset(stage)]),
                    preset(stage),
                    given,
                    problems,
                )
                for setting in describe(stage.recipe)
            ],
        )
        for stage in stages
    ]


def preset(stage: Stage) -> Preset:
    return "small" if stage.preset == "small" else "paper"


def changed_settings(stages: Iterable[Stage], given: Mapping[str, str]) -> Overrides:
    """What a retry's form sets otherwise than the stages ran with. An emptied field is as it was."""
    overrides: dict[str, dict[str, Value]] = {}
    for fields in retry_fields(stages, given, {}):
        for field in fields.fields:
            if field.is_changed and field.value.strip():
                overrides.setdefault(fields.recipe.value, {})[field.name.partition(".")[2]] = field.value.strip()
    return overrides


def texts_of(round: Round) -> dict[str, str]:
    """The settings of a round's stages as the form has them, by "recipe.setting"."""
    return {
        f"{stage.recipe}.{name}": as_text(value)
        for stage in round.stages
        for name, value in stage.configuration.items()
    }


def default_of(project: Project, preset: Preset, recipe: Recipe, setting: SettingDescription) -> Value:
    """What holds when nobody says otherwise: the project's choice, or the preset's."""
    return project_defaults(project, recipe).get(setting.name, setting.presets[preset])


def as_text(value: Value) -> str:
    """The value as a person types it; reading it again gives the same value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return f"{value:.0f}"
    return str(value)


def limits_of(setting: SettingDescription) -> str:
    """The setting's limits in words; empty where there are none."""
    parts = []
    if setting.minimum is not None and setting.maximum is not None:
        return f"{setting.minimum:g} to {setting.maximum:g}"
    if setting.minimum is not None:
        parts.append(f"at least {setting.minimum:g}")
    if setting.above is not None:
        parts.append(f"above {setting.above:g}")
    if setting.maximum is not None:
        parts.append(f"at most {setting.maximum:g}")
    return ", ".join(parts)


def overrides_of(project: Project, preset: Preset, chosen: Iterable[str], given: Mapping[str, str]) -> Overrides:
    """What the form sets otherwise than the defaults, for the chosen stages. An emptied field is a default."""
    overrides: dict[str, dict[str, Value]] = {}
    for recipe in (recipe for recipe in Recipe if recipe in set(chosen)):
        for setting in describe(recipe):
            text = given.get(f"{recipe}.{setting.name}", "").strip()
            if text and text != as_text(default_of(project, preset, recipe, setting)):
                overrides.setdefault(recipe.value, {})[setting.name] = text
    return overrides
