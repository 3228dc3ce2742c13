"""What Podium is made of: a list of it for others (SBOM), and whether any of it has a known hole.

python -m tests.supply_chain audit          every pin of constraints.txt against the public advisories (pip-audit)
python -m tests.supply_chain sbom FILE      what `pip install podium` brings, in CycloneDX JSON
"""

import json
import os
import subprocess
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PINS = Path(__file__).parents[1] / "constraints.txt"


def audit() -> int:
    """The exit code. What could not be looked up is said aloud, and fails with AUDIT=required.

    Silence would look like health: pip-audit itself calls a run healthy in which it found none of the packages.
    """
    command = ["pip_audit", "--requirement", str(PINS), "--no-deps", "--disable-pip", "--progress-spinner", "off"]
    ran = subprocess.run(
        [sys.executable, "-m", *command, "--format", "json"], capture_output=True, text=True, check=False
    )
    try:
        found = json.loads(ran.stdout)["dependencies"]
    except ValueError:
        return not_done((ran.stderr.strip().splitlines() or ["it said nothing"])[-1])
    holes = [(each, hole) for each in found for hole in each.get("vulns", ())]
    for each, hole in holes:
        mended = ", ".join(hole["fix_versions"]) or "no release"
        print(f"audit: {each['name']} {each['version']} has {hole['id']}, mended in {mended}", file=sys.stderr)
    if holes:
        return 1
    if skipped := [each["name"] for each in found if "skip_reason" in each]:
        return not_done(f"{len(skipped)} of {len(found)} packages were not found there, {skipped[0]} among them")
    print(f"audit: {len(found)} packages, no known hole")
    return 0


def not_done(reason: str) -> int:
    print(f"audit: NOT DONE, the public advisories cannot be read here ({reason})", file=sys.stderr)
    return 1 if os.environ.get("AUDIT") == "required" else 0


def sbom(root: str = "podium") -> str:
    """The distribution and all that it needs here, with versions and licences, as CycloneDX 1.6 JSON."""
    asked, found = closure(root)
    components = {name: component(each) for name, each in found.items()}
    bom = Bom(components=[made for name, made in components.items() if name != root])
    bom.metadata.component = components[root]
    for name, each in found.items():
        wanted = sorted({need for need, _ in needs(each, asked[name])} & set(components))
        bom.register_dependency(components[name], [components[need] for need in wanted])
    return JsonV1Dot6(bom).output_as_string(indent=2)


Extras = frozenset[str]


def closure(root: str) -> tuple[dict[str, Extras], dict[str, Distribution]]:
    """From the root on, by canonical name: the extras that are asked for, and what is installed."""
    asked: dict[str, Extras] = {}
    found: dict[str, Distribution] = {}
    waiting = [(root, Extras())]
    while waiting:
        name, extras = waiting.pop()
        if name in asked and extras <= asked[name]:
            continue
        asked[name] = asked.get(name, Extras()) | extras
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue  # for another platform or Python
        waiting += needs(found[name], asked[name])
    return asked, found


def needs(found: Distribution, extras: Extras) -> list[tuple[str, Extras]]:
    """Names of what it requires on this platform, with these extras of its own; and the extras that it asks for."""
    wanted = [Requirement(line) for line in found.requires or ()]
    return [
        (canonicalize_name(each.name), Extras(each.extras))
        for each in wanted
        if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in ("", *extras))
    ]


def component(found: Distribution) -> Component:
    name, said = canonicalize_name(found.metadata["Name"]), found.metadata.get_all("License-Expression") or ()
    licence = next(iter(said), None) or (found.metadata.get_all("License") or [None])[0]
    short = licence is not None and "\n" not in licence.strip()
    return Component(
        name=name,
        version=found.version,
        type=ComponentType.APPLICATION if name == "podium" else ComponentType.LIBRARY,
        purl=PackageURL("pypi", name=name, version=found.version),
        bom_ref=f"{name}=={found.version}",
        licenses=[LicenseFactory().make_from_string(licence.strip())] if licence and short else [],
    )


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["audit"]:
            sys.exit(audit())
        case ["sbom", file]:
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            Path(file).write_text(sbom())
            print(f"sbom: {file}")
        case _:
            sys.exit(__doc__)
