"""The tree keeps the design: who may import whom, read from the source and not by importing it."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DATABASE_PACKAGES = {"sqlalchemy", "psycopg", "alembic"}
# The two processes of trainer/ with what they share; the worker's other halves: stages, what is written into their
# folders (by the command that makes one again too), and evaluations; and the sampler's: slates, requests, and models.
SHELLS = {
    "trainer.worker",
    "trainer.sampler",
    "trainer.long_running",
    "trainer.hands",
    "trainer.slate_filling",
    "trainer.request_answers",
    "trainer.version_models",
    "trainer.claim_runs",
    "trainer.stage_runs",
    "trainer.stage_folder",
    "trainer.stage_tables",
    "trainer.reward_evaluations",
    "trainer.reproduce",
}
PURE = {"trainer.losses": {"torch"}, "trainer.advantages": {"torch"}, "trainer.kl": {"torch"}}
ON_ANY_GPU_MACHINE = {
    *("torch", "transformers", "accelerate", "peft", "safetensors", "tokenizers", "numpy", "huggingface_hub", "trainer")
}


def modules_of(package: str) -> Iterator[tuple[str, Path]]:
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports_of(name: str, path: Path, *, at_import_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = _outside_functions(tree) if at_import_only else ast.walk(tree)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: imports are absolute"
            found.add(str(node.module))
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _outside_functions(child)


def within(imported: str, package: str) -> bool:
    return imported == package or imported.startswith(package + ".")


# What the app may know of the trainer: settings, from which forms are made, and what memory they take.
KNOWN_TO_THE_APP = ("trainer.settings", "trainer.memory")


def test_the_app_imports_nothing_of_the_trainer_but_its_settings_and_what_memory_they_take() -> None:
    for name, path in modules_of("app"):
        strays = {
            imported
            for imported in imports_of(name, path)
            if within(imported, "trainer")
            and imported != "trainer"
            and not any(within(imported, known) for known in KNOWN_TO_THE_APP)
        }
        assert not strays, f"{name} imports {strays}"
        assert not any(within(imported, "torch") for imported in imports_of(name, path)), f"{name} imports torch"


def test_only_the_shells_of_the_trainer_know_the_app_and_the_database() -> None:
    for name, path in modules_of("trainer"):
        roots = {imported.partition(".")[0] for imported in imports_of(name, path)}
        if name not in SHELLS:
            assert not roots & {"app", *DATABASE_PACKAGES}, f"{name} imports {roots & {'app', *DATABASE_PACKAGES}}"


def test_nothing_that_trains_can_see_the_gold_preference() -> None:
    for name, path in modules_of("trainer"):
        strays = {imported for imported in imports_of(name, path) if within(imported, "app.simulation")}
        assert not strays, f"{name} imports {strays}"


def test_pure_modules_import_only_torch() -> None:
    standard = __import__("sys").stdlib_module_names
    for name, allowed in PURE.items():
        path = ROOT / (name.replace(".", "/") + ".py")
        roots = {imported.partition(".")[0] for imported in imports_of(name, path)} - standard
        assert roots <= allowed, f"{name} imports {roots - allowed}"


def test_what_the_app_knows_of_the_trainer_needs_the_standard_library_alone() -> None:
    for path in (*(ROOT / "trainer" / "settings").glob("*.py"), ROOT / "trainer" / "memory.py"):
        imports = {i for i in imports_of(path.stem, path) if not within(i, "trainer.settings")}
        assert {imported.partition(".")[0] for imported in imports} <= __import__("sys").stdlib_module_names


def test_recipes_import_on_a_machine_with_nothing_but_the_model_libraries() -> None:
    standard = __import__("sys").stdlib_module_names
    for name, path in modules_of("trainer"):
        if name in SHELLS:
            continue
        roots = {imported.partition(".")[0] for imported in imports_of(name, path, at_import_only=True)}
        assert roots - standard <= ON_ANY_GPU_MACHINE, f"{name} imports {roots - standard - ON_ANY_GPU_MACHINE}"
