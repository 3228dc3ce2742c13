"""The dataset card of a snapshot: what stands beside a file that is passed on."""

from app.datasets.models import Snapshot
from app.projects.models import Project

CARD = """\
# {project}: {name}

Human rankings of completions, collected with Podium in the project “{project}” and frozen on {date}.

| | |
| --- | --- |
| rankings | {rankings:,} |
| comparisons (pairs of which one is better) | {comparisons:,} |
| labelers | {labelers:,} |
| by kind of slate | {kinds} |
| by split | {splits} |
| by K | {sizes} |
| completions by policy version | {policies} |
| SHA-256 of the canonical `kwise` JSON lines | `{sha256}` |
| exporter | {exporter} |

The filter was `{filter}`.

`kwise` has one record a ranking: `messages` is the prompt, each of `completions` has its text, `rank` (1 is best, equal
ranks are ties), `quality` (1 to 7), `flags`, `is_safe` (of two, where it was asked), and where it came from.
`safety_bin` is Llama 2's. `pairs` has one record a comparison in TRL's preference format: `prompt`, `chosen`,
`rejected`. Prompts of one `group` are always on one side of `split`.

Labelers are pseudonyms. Names, the ids of other systems and notes are left out.
"""


def dataset_card(project: Project, snapshot: Snapshot) -> str:
    """The card in Markdown; the same for the same snapshot."""
    counts = snapshot.counts
    return CARD.format(
        project=project.name,
        name=snapshot.name,
        date=f"{snapshot.created_at:%Y-%m-%d}",
        rankings=snapshot.num_rankings,
        comparisons=snapshot.num_comparisons,
        labelers=counts["labelers"],
        kinds=in_words(counts["kind"]),
        splits=in_words(counts["split"]),
        sizes=in_words(counts["k"]),
        policies=in_words(counts["policy_version"]) or "none",
        sha256=snapshot.sha256,
        exporter=snapshot.exporter_version,
        filter=snapshot.filter,
    )


def in_words(counts: dict[str, int]) -> str:
    """The counts in the order of their names, numbers by size: JSONB keeps no order of its own."""
    return ", ".join(
        f"{name}: {count:,}" for name, count in sorted(counts.items(), key=lambda item: (len(item[0]), item))
    )
