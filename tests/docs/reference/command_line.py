"""docs/reference/command-line.md: every command of `podium`, with its arguments and options."""

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_origin

from tests.docs.checks import tree
from tests.docs.reference.tables import parts, table


def all_commands() -> str:
    commands = list(commands_below(tree(), "podium"))
    overview = table(
        ("command", "does"), [(f"[`{path}`](#{path.replace(' ', '-')})", told(one)) for path, one in commands]
    )
    return parts([overview, *(part for path, one in commands for part in told_whole(path, one))])


def commands_below(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, one in command.commands.items():
        if hasattr(one, "commands"):
            yield from commands_below(one, f"{path} {name}")
        else:
            yield f"{path} {name}", one


def told(command: Any) -> str:
    return " ".join((command.help or "").split("\n\n", 1)[0].split())


def told_whole(path: str, command: Any) -> list[str]:
    parameters = [one for one in command.params if not getattr(one, "hidden", False) and one.name != "help"]
    arguments = [one for one in parameters if one.param_type_name == "argument"]
    usage = [path, *(name_of(one) for one in arguments), *(["[options]"] if len(parameters) > len(arguments) else [])]
    rows = [(names_of(one), kind_of(one), default_of(one), getattr(one, "help", None) or "") for one in parameters]
    said = [f"## {path}", told(command), f"```text\n{' '.join(usage)}\n```"]
    return [*said, table(("argument or option", "kind", "default", "meaning"), rows)] if rows else said


def name_of(argument: Any) -> str:
    name = (argument.metavar or argument.name).upper().strip("[]")
    return f"<{name.lower()}>" if argument.required else f"[{name.lower()}]"


def names_of(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{name_of(parameter)}`"
    names = sorted(parameter.opts, key=len, reverse=True) + sorted(parameter.secondary_opts)
    return ", ".join(f"`{name}`" for name in names)


def kind_of(parameter: Any) -> str:
    if getattr(parameter, "is_flag", False):
        return "flag"
    annotation = parameter.type_descriptor.annotation
    kind = get_args(annotation)[0] if get_origin(annotation) is list else annotation
    if issubclass(kind, Enum):
        said = " or ".join(f"`{member.value}`" for member in kind)
    else:
        said = {int: "whole number", float: "number", Path: "path"}.get(kind, "text")
    said += f" from {parameter.min:g}" if parameter.min is not None else ""
    said += f" to {parameter.max:g}" if parameter.max is not None else ""
    return f"{said}, any number of times" if parameter.multiple else said


def default_of(parameter: Any) -> str:
    if getattr(parameter, "required", False):
        return "needed"
    default = parameter.default
    if default is None or default is False or default == [] or callable(default):
        return ""
    return f"`{getattr(default, 'value', default)}`"
