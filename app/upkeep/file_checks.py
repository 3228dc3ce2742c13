"""Whether the artifacts are there, can be written, and are what was registered."""

import hashlib
import random
from collections.abc import Iterator

from sqlalchemy import Connection

from app.artifact_errors import ArtifactAltered, ArtifactError, NotInStore
from app.artifacts import Store, place_of
from app.settings import Settings
from app.upkeep.findings import Finding, fault, good, note
from app.upkeep.inventory import Result, take_inventory

NUM_SAMPLED = 20  # results that are looked at, unless all are asked for
NAMED = 3


def check_files(connection: Connection, settings: Settings, *, all_files: bool) -> Iterator[Finding]:
    """all_files: read every file of every result and compare its hash; else look whether those of some are there."""
    try:
        place = place_of(settings)
        if settings.store_url is not None:
            place.check(writes=True)
            yield good("artifacts", f"the store {place.url} can be read and written")
        yield from _results(connection, place, all_files)
    except ArtifactError as error:
        yield fault("artifacts", error.message, error.advice)


def _results(connection: Connection, place: Store, all_files: bool) -> Iterator[Finding]:
    inventory = take_inventory(connection)
    results = list(inventory.results.values())
    if not all_files and len(results) > NUM_SAMPLED:
        results = random.sample(results, NUM_SAMPLED)
    problems = [problem for result in results if (problem := _problem(place, result, all_files))]
    if problems:
        more = f"; and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
        advice = "bring them back from a backup; a result can also be made again: `podium reproduce --help`"
        yield fault("results", "; ".join(problems[:NAMED]) + more, advice)
    else:
        how = "are what was registered, to the bit" if all_files else "are there (--all compares every byte)"
        of_all = "" if len(results) == len(inventory.results) else f" of {len(inventory.results)}"
        yield good("results", f"{len(results)}{of_all} results of rounds {how}")
    for policy in inventory.outside:
        yield note("outside", f"{policy} lies outside the artifacts", "no backup holds it: keep it yourself")


def _problem(place: Store, result: Result, all_files: bool) -> str | None:
    try:
        _, names = place.listing(result.folder, manifest_sha256=result.manifest_sha256)
        here = place.files(result.folder)
        for name, sha256 in names.items():
            file = f"{result.folder}/{name}"
            if file not in here:
                return f"{result.what}: {file} is gone"
            if all_files and _sha256(place, file) != sha256:
                return f"{result.what}: {file} is not the file that was written"
    except (NotInStore, ArtifactAltered) as error:
        return f"{result.what}: {error.message}"
    return None


def _sha256(place: Store, file: str) -> str:
    hash = hashlib.sha256()
    for piece in place.pieces(file):
        hash.update(piece)
    return hash.hexdigest()
