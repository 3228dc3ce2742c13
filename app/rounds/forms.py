"""The form that starts a round, made from the recipes' own settings. Pure: texts in, fields and overrides out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from app.projects.models import Project
from app.rounds.models import Recipe
from app.rounds.service import Overrides, project_defaults
from trainer.settings import Preset, SettingDescription, Value, config_class_of, describe

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
    """One setting on the form. name: "ppo.kl_coef". value: what stands in the field, as text."""

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

    @property
    def is_changed(self) -> bool:
        return self.value.strip() != self.default


@dataclass(frozen=True)
class StageFields:
    """A stage on the form with its settings."""

    recipe: Recipe
    purpose: str
    is_chosen: bool
    fields: list[SettingField]

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
    )


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


def summary_of(recipe: str) -> str:
    """The first line of what a recipe says of itself."""
    return (config_class_of(recipe).__doc__ or "").strip().splitlines()[0]
