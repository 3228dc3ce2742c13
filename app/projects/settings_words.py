"""A project's settings in words: their names, their values, and what a change changed."""

from typing import Any

from app.projects.settings import SETTINGS

TASK_NAMES = {
    "rank": "Rank 4 to 9 completions",
    "compare": "Compare two completions",
    "answer": "Answer a given prompt",
    "write": "Write a prompt and its answer",
    "converse": "Converse with the policy",
}
MIXTURE_NAMES = {
    "current": "The current policy",
    "previous": "The one before",
    "sft": "The SFT policy",
    "demonstration": "A person's demonstration, where there is one",
}
NAMES = {name: setting.label for name, setting in SETTINGS.items()} | {
    "flags": "Flags",
    "use_cases": "Use cases to write prompts for",
    "task_weights": "Tasks",
    "mixture": "Mixture",
}


def parts_of(name: str, value: Any) -> list[str]:
    """A setting's value as the parts that can be told apart: one for a number, one for each line of a list."""
    match name:
        case "task_weights":
            return [f"{TASK_NAMES.get(task, task)}: {weight:g}" for task, weight in value.items()]
        case "mixture":
            return [
                f"{MIXTURE_NAMES.get(entry['source'], entry['source'])}: {entry['weight']:g}"
                f" (temperature {entry['temperature']:g}, top-p {entry['top_p']:g})"
                for entry in value
            ]
        case "flags" | "use_cases":
            return list(value)
    if value is None:
        return ["none"]
    if isinstance(value, bool):
        return ["yes" if value else "no"]
    return [f"{value:g}" if isinstance(value, float) else str(value)]


def in_words(name: str, value: Any) -> str:
    """The whole value."""
    return "; ".join(parts_of(name, value)) or "none"


def difference(name: str, before: Any, after: Any) -> str:
    """What became of the setting: `4 → 6`, or the lines that came and went."""
    if name in SETTINGS:
        return f"{in_words(name, before)} → {in_words(name, after)}"
    old, new = parts_of(name, before), parts_of(name, after)
    gone, came = [part for part in old if part not in new], [part for part in new if part not in old]
    said = [f"− {part}" for part in gone] + [f"+ {part}" for part in came]
    return "; ".join(said) or "in another order"
