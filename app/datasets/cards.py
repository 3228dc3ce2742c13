"""The dataset card of a snapshot: what stands beside a file that is passed on."""

from app.datasets.models import Snapshot
from app.projects.models import Project

CARD = """\
# {project}: {name}

Human rankings of completions and written demonstrations, collected with Podium in the project “{project}” and frozen
on {date}.

| | |
| --- | --- |
| rankings | {rankings:,} |
| of which picks: one against each of the others | {picks:,} |
| comparisons (pairs of which one is better) | {comparisons:,} |
| of which left out of `hh`: a text has a speaker's mark in it | {not_in_hh} |
| slates that a researcher decided | {adjudicated:,} |
| labelers | {labelers:,} |
| by kind of slate | {kinds} |
| by split | {splits} |
| by K | {sizes} |
| completions by policy version | {policies} |
| demonstrations | {demonstrations} |
| conversations by split | {demonstration_splits} |
| conversations by kind of prompt | {prompt_kinds} |
| SHA-256 of the canonical `kwise` JSON lines | `{sha256}` |
| SHA-256 of the canonical `sft` JSON lines | {sft_sha256} |
| exporter | {exporter} |

The filter was `{filter}`.

`kwise` has one record a ranking: `messages` is the prompt, each of `completions` has its text, `rank` (1 is best, equal
ranks are ties), `quality` (1 to 7), `flags`, `is_safe` (of two, where it was asked), and where it came from.
`safety_bin` is Llama 2's. Where `is_pick`, one completion was picked as the best: it was compared with each of the
others, and their equal ranks are no ties. `adjudication` is a researcher's decision on a slate that its labelers ranked
differently, or null.

`pairs` has one record a comparison in TRL's preference format: `prompt`, `chosen`, `rejected`. It is written with the
labels as given, or with the decision alone where a slate was `adjudicated`: a decision's comparisons have no labeler.

`sft` has one record for what a person wrote in one piece, in TRL's conversational format: `messages`, whose turns
`written_turns` (counted from 0) a person wrote as the assistant. `used_suggestion` marks those that began as the
policy's.

Prompts of one `group` are always on one side of `split`.

Labelers are pseudonyms. Names, the ids of other systems and notes are left out.
"""


def dataset_card(project: Project, snapshot: Snapshot) -> str:
    """The card in Markdown; the same for the same snapshot."""
    counts = snapshot.counts
    pieces = counts.get("demonstration_split", {})
    return CARD.format(
        project=project.name,
        name=snapshot.name,
        date=f"{snapshot.created_at:%Y-%m-%d}",
        rankings=snapshot.num_rankings,
        picks=counts.get("picks", 0),
        comparisons=snapshot.num_comparisons,
        not_in_hh=f"{counts['not_in_hh']:,}" if "not_in_hh" in counts else "not counted",
        adjudicated=counts.get("adjudicated", 0),
        labelers=counts["labelers"],
        kinds=in_words(counts["kind"]) or "none",
        splits=in_words(counts["split"]) or "none",
        sizes=in_words(counts["k"]) or "none",
        policies=in_words(counts["policy_version"]) or "none",
        demonstrations=demonstrations_in_words(snapshot),
        demonstration_splits=in_words(pieces) or "none",
        prompt_kinds=in_words(counts.get("demonstration_prompt_kind", {})) or "none",
        sha256=snapshot.sha256,
        sft_sha256="none" if snapshot.sft_sha256 is None else f"`{snapshot.sft_sha256}`",
        exporter=snapshot.exporter_version,
        filter=snapshot.filter,
    )


def demonstrations_in_words(snapshot: Snapshot) -> str:
    """How many completions people wrote, and in how many pieces: the conversations that sft holds."""
    if not snapshot.num_demonstrations:
        return "none"
    counts = snapshot.counts
    pieces = sum(counts["demonstration_split"].values())
    return (
        f"{snapshot.num_demonstrations:,} in {pieces:,} conversations by {counts['writers']:,} people,"
        f" {counts['with_suggestion']:,} from a suggestion of the policy"
    )


def in_words(counts: dict[str, int]) -> str:
    """The counts in the order of their names, numbers by size: JSONB keeps no order of its own."""
    return ", ".join(
        f"{name}: {count:,}" for name, count in sorted(counts.items(), key=lambda item: (len(item[0]), item))
    )
