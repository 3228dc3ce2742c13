"""What is wrong with a command of the docs: one check for each program, an AssertionError with the reason."""

import argparse
import importlib.util
import json
import re
import sys
import tomllib
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import typer

from app.cli import cli
from app.main import create_app
from app.settings import Settings
from tests.docs.commands import METHODS, Command
from tests.docs.pages import ROOT

# Read beside app.settings: by `podium export --server` and programs; by recipes (trainer.rollout_server).
ELSEWHERE = {"PODIUM_KEY", "PODIUM_ROLLOUTS_URL", "PODIUM_ROLLOUTS_KEY"}


def variables() -> set[str]:
    """Every environment variable of ours."""
    fields = Settings.model_fields.items()
    return {str(field.validation_alias or f"PODIUM_{name}".upper()) for name, field in fields} | ELSEWHERE


def check_assignments(command: Command) -> None:
    """Ours exist; those of other programs are theirs to know."""
    for name, _ in command.assignments:
        assert not name.startswith("PODIUM_") or name in variables(), f"nothing reads {name}"


# --- podium ---------------------------------------------------------------------------------------


@cache
def tree() -> Any:
    return typer.main.get_command(cli)


def parsed(words: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    """The command's path below `podium`, and its parameters by name. Raises what the command line would say."""
    context, command, name, arguments = None, tree(), "podium", list(words)
    while True:
        context = command.make_context(name, arguments, parent=context)
        if not hasattr(command, "commands"):
            return context.command_path.removeprefix("podium "), dict(context.params)
        name, command, arguments = command.resolve_command(context, [*context._protected_args, *context.args])


def check_podium(command: Command) -> None:
    try:
        parsed(command.words)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        raise AssertionError(error.format_message()) from error


def check_mentioned_podium(command: Command) -> None:
    """A sentence may leave arguments out: its words lead to a command, which has the options that it names."""
    found, rest = tree(), list(command.words)
    while rest and hasattr(found, "commands"):
        if rest[0] not in found.commands:
            assert not rest[0].isalpha(), f"there is no command {rest[0]}"
            return
        found = found.commands[rest.pop(0)]
    names = {name for parameter in found.params for name in (*parameter.opts, *parameter.secondary_opts)}
    unknown = {word.partition("=")[0] for word in rest if word.startswith("--")} - names - {"--help"}
    assert not unknown, f"it has no {', '.join(sorted(unknown))}"


def check_mentioned_python(command: Command) -> None:
    """Without arguments a sentence speaks of the program."""
    if len(command.words) > 2 or command.words[:1] != ("-m",):
        check_python(command)
    else:
        assert importlib.util.find_spec(command.words[1]) is not None, f"there is no module {command.words[1]}"


# --- make, python, torchrun -----------------------------------------------------------------------


def check_make(command: Command) -> None:
    """The targets exist, and so do the variables that are set."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in command.words:
        name, is_variable, _ = word.partition("=")
        if is_variable:
            assert f"$({name})" in text or f"$(filter 1,$({name})" in text, f"the Makefile has no {name}"
        else:
            assert re.search(rf"^{re.escape(word)}:", text, flags=re.MULTILINE), f"the Makefile has no target {word}"


class Parsed(BaseException):
    """The program has read its arguments, and need not go on."""


def check_python(command: Command) -> None:
    """`python -m`: a benchmark reads its options, a recipe is there and is given a folder."""
    assert command.words[:1] == ("-m",), "only modules are run"
    module, arguments = command.words[1], command.words[2:]
    assert importlib.util.find_spec(module) is not None, f"there is no module {module}"
    if module.startswith("benchmarks."):
        check_options(module, arguments)
    elif module.startswith("trainer.recipes."):
        assert len(arguments) == 1, "a recipe is given a round folder"
    else:
        assert module in {"trainer.starter", "pytest"}, f"nobody knows what {module} is given"


def check_options(module: str, arguments: tuple[str, ...]) -> None:
    """Run the program as far as its argument parser, which must take the arguments."""
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser: argparse.ArgumentParser, *given: Any, **named: Any) -> None:
        parse(parser, *given, **named)
        raise Parsed

    spec = importlib.util.find_spec(module)
    if spec is not None and spec.submodule_search_locations is not None:
        module = f"{module}.__main__"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
        patch.setattr(sys, "argv", [module, *arguments])
        try:
            importlib.import_module(module).main()
        except Parsed:
            return
        except ModuleNotFoundError as error:
            if error.name != "trl":  # it runs in an environment of its own, with TRL
                raise
            return
        except SystemExit as error:
            raise AssertionError(f"{module} does not take {' '.join(arguments)}") from error
    raise AssertionError(f"{module} reads no arguments")


def check_torchrun(command: Command) -> None:
    """Its own options by its own parser; the module is there."""
    from torch.distributed.run import get_args_parser

    read = get_args_parser().parse_args(list(command.words))
    assert read.module, "recipes are modules: -m"
    assert importlib.util.find_spec(read.training_script) is not None, f"there is no module {read.training_script}"


# --- the API --------------------------------------------------------------------------------------


@cache
def api() -> Any:
    """The web product and its OpenAPI document."""
    app = create_app(Settings())
    return app, app.openapi()


def operation_of(method: str, path: str) -> tuple[str, Mapping[str, Any]]:
    """The path's template and its operation in the OpenAPI document."""
    _, document = api()
    segments = path.strip("/").split("/")
    for template, operations in document["paths"].items():
        names = template.strip("/").split("/")
        is_it = len(names) == len(segments) and all(
            name == segment or name.startswith("{") for name, segment in zip(names, segments, strict=True)
        )
        if is_it and method.lower() in operations:
            return template, operations[method.lower()]
    raise AssertionError(f"there is no {method} {path}")


def check_request(method: str, address: str, body: str | None) -> None:
    """The route exists, its query has these parameters, its body these fields."""
    parts = urlsplit(address)
    _, operation = operation_of(method, parts.path)
    known = {parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "query"}
    unknown = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)} - known
    assert not unknown, f"{method} {parts.path} has no {', '.join(sorted(unknown))}"
    if body is not None:
        content = operation["requestBody"]["content"]["application/json"]["schema"]
        fields = api()[1]["components"]["schemas"][content["$ref"].rpartition("/")[2]]["properties"]
        unknown = set(json.loads(body)) - set(fields)
        assert not unknown, f"the body of {method} {parts.path} has no {', '.join(sorted(unknown))}"


def request_of(command: Command) -> tuple[str, str, str | None]:
    """Method, path with query, and body of a `curl` command or of an `http` line."""
    if command.program in METHODS:
        body = " ".join(command.words[1:]) or None
        return command.program, command.words[0], body
    reader = argparse.ArgumentParser(exit_on_error=False)
    for option in ("-H", "-o", "-C", "-X", "-d", "-F", "--etag-save"):
        reader.add_argument(option, action="append")
    for flag in ("-s", "-f", "-L", "-fsS", "-N"):
        reader.add_argument(flag, action="store_true")
    reader.add_argument("address")
    read = reader.parse_args(list(command.words))
    method = read.X[0] if read.X else "POST" if read.d or read.F else "GET"
    path = re.sub(r"^(\$\w+|https?://[^/]+)", "", read.address)
    return method, path, read.d[0] if read.d else None


def check_call(command: Command) -> None:
    method, address, body = request_of(command)
    check_request(method, address, body)


# --- what is not ours -----------------------------------------------------------------------------


def check_export(command: Command) -> None:
    """`export NAME=value`: ours are read by somebody."""
    for word in command.words:
        name, is_given, _ = word.partition("=")
        assert is_given, f"{name} is given no value"
        assert not name.startswith("PODIUM_") or name in variables(), f"nothing reads {name}"


def check_pip(command: Command) -> None:
    """Files and extras that are named are there."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for word in command.words:
        if word.endswith(".txt"):
            assert (ROOT / word).exists(), f"there is no {word}"
        if found := re.search(r"\[(\w+)\]", word):
            assert found[1] in extras, f"there is no extra {found[1]}"


def check_docker(command: Command) -> None:
    """Read only: no Docker here. The services and files that are named are there."""
    import yaml

    assert command.words[0] == "compose", "images are built by compose"
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    verb = next(word for word in command.words[1:] if not word.startswith("-") and not word.endswith((".yml", ".yaml")))
    after = command.words[command.words.index(verb) + 1 :]
    assert verb in {"up", "down", "logs", "exec", "run", "stop", "start", "ps", "pull", "build", "restart", "cp"}
    named = next((word for word in after if not word.startswith("-")), None)
    assert named is None or verb == "cp" or named in services, f"docker-compose.yml has no service {named}"
    for word in command.words:
        assert not word.endswith((".yml", ".yaml")) or (ROOT / word).exists(), f"there is no {word}"


def is_taken_as_it_stands(command: Command) -> None:
    """A program of somebody else that is not here, or one of every shell: nothing of ours to hold it against."""


CHECKS: Mapping[str, Callable[[Command], None]] = {
    "podium": check_podium,
    "make": check_make,
    "python": check_python,
    "torchrun": check_torchrun,
    "curl": check_call,
    **dict.fromkeys(METHODS, check_call),
    "export": check_export,
    "pip": check_pip,
    "docker": check_docker,
    # Not here, and never run by a test: a server for models, and the shell's own.
    **dict.fromkeys(("vllm", "transformers", "git", "cd", "echo", "find", "rm"), is_taken_as_it_stands),
}
