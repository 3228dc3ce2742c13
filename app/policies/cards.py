"""The model card of a version: what it came from, how it was judged, and what is known against relying on it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from app.datasets.breakdowns import Counts
from app.policies import benchmarks, lineage
from app.policies.labels import Source, ancestors_of, breakdown, sources_of
from app.policies.limits import limits_of
from app.policies.lineage import Line, Origin
from app.policies.models import PolicyBenchmark, PolicyVersion
from app.policies.service import STARTER_SOURCE, policy_path
from app.projects.models import Project
from app.rounds.models import Stage
from app.settings import Settings

# Figures of an evaluation: name, what it says, digits, and whether a larger number is a share.
FIGURES = (
    ("score", "Score of the reward model", 2),
    ("greedy_score", "Score of likeliest completions", 2),
    ("kl", "KL to the SFT policy, nats per completion", 1),
    ("tokens", "Length, tokens", 1),
    ("eos_rate", "Finished completions", 2),
    ("distinct_1", "Distinct words", 3),
    ("distinct_2", "Distinct word pairs", 3),
    ("self_bleu", "Likeness of completions (self-BLEU)", 3),
    ("perplexity", "Perplexity of a fixed text (alignment tax)", 2),
)
LICENCE = re.compile(r"---\n(?:(?!---).*\n)*?license: *(\S+)")  # within the front matter
START_OF_README = 4000  # letters in which a licence is looked for


@dataclass(frozen=True)
class Base:
    """What the version was made from in the end: the model that its project began with.

    source: "starter", a Hugging Face name, or a folder.  licence: as its own card says it; None where it says none.
    """

    version: PolicyVersion
    source: str
    licence: str | None

    @property
    def is_on_hub(self) -> bool:
        return self.source != STARTER_SOURCE and not Path(self.source).is_absolute()


@dataclass(frozen=True)
class Card:
    """All that is said of a version. stages: those that made it and its reward model, as they ran."""

    version: PolicyVersion
    line: Line
    origin: Origin | None
    baseline: PolicyVersion | None
    sources: list[tuple[Source, Counts]]
    stages: list[Stage]
    base: Base
    limits: list[str]
    benchmarks: list[PolicyBenchmark]

    @property
    def figures(self) -> Mapping[str, Any]:
        return self.line.figures


def card_of(session: Session, settings: Settings, version: PolicyVersion) -> Card:
    """The card as the facts are now."""
    line = lineage.line_of(session, version)
    origin = lineage.origin_of(session, version)
    sources = [(source, breakdown(session, source)) for source in sources_of(session, version)]
    was_candidate = origin is not None and origin.round.candidate_id == version.id
    return Card(
        version=version,
        line=line,
        origin=origin,
        baseline=session.get_one(PolicyVersion, origin.round.baseline_id) if origin and was_candidate else None,
        sources=sources,
        stages=stages_of(session, origin),
        base=base_of(session, settings, version),
        limits=limits_of(
            version,
            line.figures if "candidate_score" in line.figures else {},
            line.win_rate,
            sources,
            (origin.stage.result or {}) if origin else {},
        ),
        benchmarks=benchmarks.benchmarks_of(session, version),
    )


def stages_of(session: Session, origin: Origin | None) -> list[Stage]:
    """The stage of the reward model that scored the version, and its own."""
    if origin is None:
        return []
    fitted = [session.get_one(Stage, origin.reward_model.stage_id)] if origin.reward_model else []
    return [*fitted, origin.stage]


def base_of(session: Session, settings: Settings, version: PolicyVersion) -> Base:
    first = ancestors_of(session, version)[-1]
    return Base(first, first.source, licence_in(Path(policy_path(settings, first)) / "README.md"))


def licence_in(readme: Path) -> str | None:
    """The licence that a Hugging Face model card names, where there is one."""
    try:
        with readme.open(encoding="utf-8") as file:
            found = LICENCE.match(file.read(START_OF_README))
    except (OSError, UnicodeDecodeError):
        return None  # a name on the hub, or a folder of another machine
    return found[1] if found else None


def markdown(project: Project, card: Card) -> str:
    """The card as a README.md of a Hugging Face folder: the same text for the same facts."""
    parts = [front_matter(card), f"# {project.name}: policy version {card.version.number}\n", opening(card)]
    parts += ["## Where it comes from\n", table(("", ""), origin_rows(card))]
    if "candidate_score" in card.figures:
        parts += [f"## Evaluation on {card.figures.get('num_prompts', 0)} test prompts\n", evaluation(card)]
    if card.benchmarks:
        parts += ["## Public tasks\n", public_tasks(card)]
    parts += ["## Known limits\n", "\n".join(f"- {limit}" for limit in card.limits) + "\n"]
    if card.sources:
        parts += ["## Labels\n", *(labels(source, counts) for source, counts in card.sources)]
    for stage in card.stages:
        parts += [f"## Settings of {stage.recipe} as it ran\n", settings_of(stage)]
    return "\n".join(parts)


def front_matter(card: Card) -> str:
    lines = [f"license: {card.base.licence}"] if card.base.licence else []
    lines += [f"base_model: {card.base.source}"] if card.base.is_on_hub else []
    return "\n".join(
        ["---", *lines, "library_name: transformers", "pipeline_tag: text-generation", "tags: [rlhf, podium]", "---\n"]
    )


def opening(card: Card) -> str:
    version, verdict = card.version, card.line.win_rate
    made = "What its project began with" if card.origin is None else f"Made by {version.recipe} with Podium"
    said = f"{made}; its state is *{version.state.value}*."
    if verdict is not None and card.baseline is not None:
        said += (
            f" In {verdict.num_comparisons} blind comparisons people preferred it over version {card.baseline.number}"
            f" {verdict.rate:.1%} of the time (95 % interval {verdict.low:.1%} to {verdict.high:.1%}; ties count half)."
        )
    return said + "\n"


def origin_rows(card: Card) -> list[tuple[str, str]]:
    version, origin, base = card.version, card.origin, card.base
    rows = [("version", str(version.number))]
    if origin is not None:
        rows.append(("made by", f"{version.recipe}, round {origin.round.number}, {version.created_at:%Y-%m-%d}"))
        rows += [("started from", f"version {origin.parent.number}")] if origin.parent else []
        rows += [("reward model", str(origin.reward_model.number))] if origin.reward_model else []
    rows.append(("base model", f"`{base.source}`" + (f", licence {base.licence}" if base.licence else "")))
    rows += [("architecture", str(base.version.facts["architecture"]))] if "architecture" in base.version.facts else []
    rows.append(("parameters", f"{version.num_parameters:,}" if version.num_parameters else "not known"))
    rows.append(("context", f"{version.context_tokens:,} tokens" if version.context_tokens else "not known"))
    rows += [("SHA-256 of manifest.json", f"`{version.manifest_sha256}`")] if version.manifest_sha256 else []
    return rows


def evaluation(card: Card) -> str:
    figures = card.figures
    before = f"version {card.baseline.number}" if card.baseline else "before"
    rows = [
        (label, f"{figures[f'candidate_{name}']:.{digits}f}", number(figures.get(f"current_{name}"), digits))
        for name, label, digits in FIGURES
        if figures.get(f"candidate_{name}") is not None
    ]
    return table(("", f"version {card.version.number}", before), rows)


def public_tasks(card: Card) -> str:
    rows = [
        (row.task, row.metric, benchmarks.told(row), benchmarks.way_in_words(row), f"{row.num_examples:,}", row.harness)
        for row in card.benchmarks
    ]
    return table(("task", "metric", "value ± standard error", "asked", "examples", "harness"), rows)


def labels(source: Source, counts: Counts) -> str:
    sha256 = source.snapshot.sha256 if source.content == "rankings" else source.snapshot.sft_sha256
    split = ", ".join(f"{num:,} {name}" for name, num in sorted(counts.get("split", {}).items()))
    only_new = " It learned from those alone that no earlier round knew." if source.only_new else ""
    return (
        f"- {source.num_labels:,} {source.content} of {people(counts)} ({split}), snapshot"
        f" “{source.snapshot.name}”, SHA-256 `{sha256}`.{only_new}\n"
    )


def people(counts: Counts) -> str:
    num = len(counts.get("labeler", {}))
    return "1 person" if num == 1 else f"{num:,} people"


def settings_of(stage: Stage) -> str:
    rows = [(name, f"`{value}`") for name, value in sorted(stage.configuration.items())]
    rows.append(("seed", f"`{stage.seed}`"))
    rows += [(name, f"`{value}`") for name, value in sorted(flat(stage.versions).items())]
    return table(("setting", "value"), rows)


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Libraries' versions beside the code's, without their groups."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value) if isinstance(value, Mapping) else {name: value}
    return found


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines) + "\n"


def number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
