"""The dataset card of a snapshot: what stands beside a file that is passed on, as Hugging Face reads cards."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.datasets.filter_words import in_words as filter_in_words
from app.datasets.filters import SnapshotFilter
from app.datasets.licences import UNKNOWN
from app.datasets.models import Snapshot
from app.projects.models import Project

# Upper ends of Hugging Face's size_categories, and their names.
SIZES = (
    *((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M")),
    *((10**8, "10M<n<100M"), (10**9, "100M<n<1B")),
)
NOT_MEASURED = "The snapshot was frozen before this was measured, and snapshots do not change."
GROUP_WORDS = {
    "members": "with an account here",
    "imported": "named by an imported file",
    "researchers": "researchers or admins",
    "onboarded": "who reached the onboarding's threshold",
    "admitted": "admitted by an admin",
    "warned": "warned at the freeze",
    "paused": "paused at the freeze",
    "held_out": "whom a reward model fitted to these rankings leaves out",
}

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

Licence: {licence}.

## What was chosen

{chosen}. Exactly: `{filter}`.

{measured}
## Records

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


def dataset_card(project: Project, snapshot: Snapshot, configs: Sequence[Mapping[str, Any]] = ()) -> str:
    """The card in Markdown with its front matter; the same for the same snapshot.

    configs: of a published folder, which files are which configuration's, as the Hub and `datasets` read them.
    """
    counts = snapshot.counts
    pieces = counts.get("demonstration_split", {})
    return front_matter(project, snapshot, configs) + CARD.format(
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
        filter=json.dumps(snapshot.filter, ensure_ascii=False, sort_keys=True),
        licence=snapshot.licence or "unknown: nobody said how these labels may be used",
        chosen=sentence(filter_in_words(SnapshotFilter.model_validate(snapshot.filter))),
        measured="\n".join(measured_sections(snapshot)),
    )


def front_matter(project: Project, snapshot: Snapshot, configs: Sequence[Mapping[str, Any]]) -> str:
    """What Hugging Face reads of a card: YAML, whose strings JSON writes."""
    tasks = (["reinforcement-learning"] if snapshot.num_rankings else []) + ["text-generation"]
    num = max(snapshot.num_rankings, snapshot.num_demonstrations)
    fields: dict[str, Any] = {
        "pretty_name": f"{project.name}: {snapshot.name}",
        "license": snapshot.licence or UNKNOWN,
        "task_categories": tasks,
        "size_categories": [next((name for end, name in SIZES if num < end), "n>1T")],
        "tags": ["rlhf", "human-feedback", "preferences", "podium"],
    }
    if configs:
        fields["configs"] = list(configs)
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items()]
    return "\n".join(["---", *lines, "---", "", ""])


def measured_sections(snapshot: Snapshot) -> Iterator[str]:
    """Agreement, people, guidelines and biases as they were at the freeze; nothing of demonstrations alone."""
    if not snapshot.num_rankings:
        return
    measured = snapshot.measured
    if not measured:
        yield f"## Agreement, people, guidelines, biases\n\n{NOT_MEASURED}\n"
        return
    alike, alpha = measured["agreement"]["alike"], measured["agreement"]["alpha"]
    yield "## Agreement\n"
    yield (
        f"Two people order {estimate(alike)} of a slate's comparisons alike, ties counting half"
        f" ({alike['num']:,} comparisons). Krippendorff's alpha of their ranks is {estimate(alpha, is_share=False)}.\n"
        if alike["value"] is not None
        else "No slate was ranked by two people, so how far people agree cannot be said.\n"
    )
    yield "## Who was asked\n"
    yield people(snapshot)
    yield "## Guidelines\n"
    yield guidelines(measured["guidelines"])
    yield "## Known biases\n"
    yield biases(measured["biases"])


def people(snapshot: Snapshot) -> str:
    measured = snapshot.measured
    in_groups = measured["labeler_groups"]
    groups = [f"{in_groups[group]:,} {words}" for group, words in GROUP_WORDS.items() if group in in_groups]
    worked = measured["hours"]
    time = (
        f" They worked {worked['hours']:,.1f} hours, idle time left out, as far as it was measured: on"
        f" {worked['num_timed']:,} of {snapshot.num_rankings:,} rankings."
        if worked["hours"] is not None
        else " How long they worked is not known."
    )
    return f"{snapshot.counts['labelers']:,} labelers{': ' * bool(groups)}{', '.join(groups)}.{time}\n"


def guidelines(found: Mapping[str, Any]) -> str:
    """Which versions were in force while the rankings were given."""
    parts = [f"version {version}: {num:,} rankings" for version, num in sorted_by_name(found["versions"])]
    parts += [f"before the first version: {found['before']:,}"] if found["before"] else []
    parts += [f"given elsewhere, and imported: {found['imported']:,}"] if found["imported"] else []
    return "; ".join(parts).capitalize() + ".\n"


def biases(found: Mapping[str, Any]) -> str:
    lines = [
        "- Of two completions of different length of which one is better, the longer one is:"
        f" {estimate(found['longer_is_better'])}.",
        f"- Of two completions of which one is better, the one shown first is: {estimate(found['first_is_better'])}."
        " The order shown is drawn at random for each labeler: one half is no bias.",
    ]
    if found["ties"] is not None:
        lines.append(f"- {found['ties']:.1%} of the comparisons that people made are ties.")
    if found["most_productive"] is not None:
        lines.append(f"- The labeler who gave most gave {found['most_productive']:.1%} of the rankings.")
    return "\n".join(lines) + "\n"


def estimate(found: Mapping[str, Any], *, is_share: bool = True) -> str:
    """`73.1% (95 % interval 71.0% to 75.2%)`, or why there is none."""
    if found["value"] is None:
        return f"not known ({found['reason']})"
    told = "{:.1%}" if is_share else "{:.2f}"
    if found["low"] is None:
        return f"{told.format(found['value'])} (too few prompts for an interval)"
    low, high = told.format(found["low"]), told.format(found["high"])
    return f"{told.format(found['value'])} (95 % interval {low} to {high})"


def sentence(words: str) -> str:
    return words[:1].upper() + words[1:]


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
    return ", ".join(f"{name}: {count:,}" for name, count in sorted_by_name(counts))


def sorted_by_name(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (len(item[0]), item))
