"""What of the artifacts a database names: results that must be there, and folders of stages as far as they have come.

Read with plain SQL from whatever schema stands there, since a backup is wanted most before a migration.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, text

ROUNDS_PREFIX = "rounds:"  # before a result folder, in a policy version's source


@dataclass(frozen=True)
class Result:
    """A folder below the artifacts that never changes again. what: in words, whose result it is."""

    folder: str
    manifest_sha256: str
    what: str


@dataclass(frozen=True)
class Inventory:
    """What a database names, at one moment.

    results: what must be there, by folder.  reduced: results whose weights a rule removed.  folders: of stages, tries
    and evaluations -> whether the work in it may still go on from its checkpoints.  outside: policies whose files are
    somebody else's to keep, in words.  doomed: folders that an erasure is to remove and has not yet.
    rows: table -> how many.  rules: constraints, triggers and indexes, each with its table.  schema: its migration.
    """

    results: Mapping[str, Result]
    reduced: tuple[str, ...]
    folders: Mapping[str, bool]
    outside: tuple[str, ...]
    doomed: frozenset[str]
    rows: Mapping[str, int]
    rules: tuple[str, ...]
    schema: str


# A row as JSON has no weights_removed_at where the schema has no such column yet.
POLICIES = """
SELECT project.slug, policy_version.number, policy_version.source, policy_version.manifest_sha256,
       to_jsonb(policy_version) ->> 'weights_removed_at'
FROM policy_version JOIN project ON project.id = policy_version.project_id ORDER BY 1, 2
"""
REWARD_MODELS = """
SELECT project.slug, reward_model_version.number, reward_model_version.source, reward_model_version.manifest_sha256,
       to_jsonb(reward_model_version) ->> 'weights_removed_at'
FROM reward_model_version JOIN project ON project.id = reward_model_version.project_id ORDER BY 1, 2
"""
EVALUATIONS = """
SELECT id, folder, manifest_sha256, state FROM reward_evaluation WHERE folder IS NOT NULL ORDER BY id
"""
STAGES = "SELECT folder, state <> 'succeeded' FROM stage WHERE folder IS NOT NULL ORDER BY id"
TRIES = "SELECT folder FROM stage_try ORDER BY stage_id, number"
# Constraints of the kind n (NOT NULL) are rows of their own on servers from 18 on alone: tables carry them anyway.
RULES = """
SELECT relname || ' ' || conname FROM pg_constraint JOIN pg_class ON pg_class.oid = conrelid
WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
UNION SELECT relname || ' ' || tgname FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
WHERE NOT tgisinternal AND tgenabled <> 'D' AND relnamespace = 'public'::regnamespace
UNION SELECT tablename || ' ' || indexname FROM pg_indexes WHERE schemaname = 'public'
"""
GONE = "SELECT folder, removed_at IS NULL FROM doomed_folder"  # by an erasure


def take_inventory(connection: Connection) -> Inventory:
    """What the database names as the connection's transaction sees it."""
    tables = tables_of(connection)
    erased = _rows(connection, GONE, tables, "doomed_folder")
    gone, doomed = {folder for folder, _ in erased}, frozenset(folder for folder, waits in erased if waits)
    results: dict[str, Result] = {}
    outside, reduced = [], []
    for slug, number, source, sha256, removed_at in _rows(connection, POLICIES, tables, "policy_version"):
        what = f"policy version {number} of {slug}"
        if source.startswith(ROUNDS_PREFIX):
            folder = source.removeprefix(ROUNDS_PREFIX)
            results[folder] = Result(folder, sha256, what)
            reduced += [folder] if removed_at else []
        elif source != "starter":
            outside.append(f"{what}: {source}")
    for slug, number, folder, sha256, removed_at in _rows(connection, REWARD_MODELS, tables, "reward_model_version"):
        reduced += [folder] if removed_at else []
        results[folder] = Result(folder, sha256, f"reward model {number} of {slug}")
    folders = dict(_rows(connection, STAGES, tables, "stage"))
    folders |= {folder: False for (folder,) in _rows(connection, TRIES, tables, "stage_try")}
    for id, folder, sha256, state in _rows(connection, EVALUATIONS, tables, "reward_evaluation"):
        folders.setdefault(folder, state != "succeeded")
        if sha256 is not None:
            results.setdefault(f"{folder}/result", Result(f"{folder}/result", sha256, f"reward evaluation {id}"))
    not_whole = {*gone, *reduced}
    return Inventory(
        results={folder: result for folder, result in results.items() if not is_within(folder, not_whole)},
        reduced=tuple(reduced),
        folders={folder: may_go_on for folder, may_go_on in folders.items() if not is_within(folder, doomed)},
        doomed=doomed,
        outside=tuple(outside),
        rows=count_rows(connection),
        rules=rules_of(connection),
        schema=str(connection.scalar(text("SELECT version_num FROM alembic_version"))),
    )


def tables_of(connection: Connection) -> list[str]:
    """The tables that stand in the database, by name."""
    found = connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"))
    return [name for (name,) in found]


def count_rows(connection: Connection) -> dict[str, int]:
    """How many rows each table has, as the connection's transaction sees it."""
    quote = connection.dialect.identifier_preparer.quote
    return {
        table: connection.exec_driver_sql(f"SELECT count(*) FROM {quote(table)}").scalar_one()  # noqa: S608 - quoted
        for table in tables_of(connection)
    }


def rules_of(connection: Connection) -> tuple[str, ...]:
    """What the database holds rows to, by table and name: a restore that broke off has rows and not all of these."""
    return tuple(sorted(name for (name,) in connection.execute(text(RULES))))


def is_within(folder: str, others: Collection[str]) -> bool:
    """Whether the file or folder, or one that it lies in, is among the others."""
    parts = folder.split("/")
    return any("/".join(parts[:end]) in others for end in range(1, len(parts) + 1))


def _rows(connection: Connection, query: str, tables: list[str], table: str) -> list[tuple]:  # type: ignore[type-arg]
    """None where an older schema does not have the table yet."""
    return [tuple(row) for row in connection.execute(text(query))] if table in tables else []
