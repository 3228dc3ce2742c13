"""The simulation's tables and plots, from the lines that its runs left; nothing is measured here."""

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.reward import machine, versions
from benchmarks.simulation.flaw_report import flaw_plot, flaw_report
from benchmarks.simulation.loop import ARMS, STARTER, read_lines
from benchmarks.simulation.plots import Plot, write_plot
from benchmarks.simulation.statistics import Mean, mean_of
from trainer.settings import RECIPES, describe

ROUNDS = (1, 2, 3, 4)
BEST_OF_N = "best of 4"
QUESTIONS = {
    "restart": ("Where a round starts, and from which labels", ["ppo", "latest labels", "continued"]),
    "recipes": ("How the policy is improved", ["ppo", "grpo", "rejection", BEST_OF_N]),
    "ensemble": ("One reward model or four", ["ppo", "ensemble"]),
    "asking": ("What labelers are asked", ["ensemble", "ensemble asked by disagreement"]),
}
ABOUT = {
    "ppo": "PPO from the SFT policy, all labels so far, one reward model, prompts at random: the default",
    "latest labels": "the same, with the last round's labels alone",
    "continued": "the same, going on from the last round's policy, with as much KL again to spend each round",
    "grpo": "GRPO in place of PPO",
    "rejection": "rejection sampling in place of PPO",
    BEST_OF_N: "no training: of 4 completions of the starter, the one that the default's reward model scores best",
    "ensemble": "the default with four reward models, adapters on one trunk; their mean counts",
    "ensemble asked by disagreement": "the same, and 3 of 4 slates are those of 4 times as many that they disagree on",
}
Lines = Sequence[Mapping[str, Any]]


def write_report(results: Path, docs: Path, command: str) -> None:
    """benchmarks/results/simulation.md, the same tables in docs/science.md, and its plots."""
    lines, flaws = read_lines(results / "simulation.jsonl"), read_lines(results / "flaw.jsonl")

    def text(plots: str) -> str:
        return "\n".join([*loop_report(lines, plots), *flaw_report(flaws, plots)]) + "\n"

    day = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    measured = ", ".join([f"{day}, {machine(1)}", *(f"{n} {v}" for n, v in versions().items() if n != "trl")])
    head = f"# The loop against a gold preference\n\n{measured}.\n\n    {command}\n\n"
    (results / "simulation.md").write_text(head + text("../../docs/plots"), encoding="utf-8")
    page = docs / "science.md"
    written = replaced(page.read_text(encoding="utf-8"), "simulation", f"{measured}.\n\n{text('plots')}")
    page.write_text(replaced(written, "defaults", defaults()), encoding="utf-8")
    for name, (title, arms) in QUESTIONS.items():
        known = [arm for arm in arms if figures(lines, arm, 1)]
        if len(known) > 1:
            write_plot(docs / "plots" / f"simulation-{name}.svg", loop_plot(lines, title, known))
    if flaws:
        write_plot(docs / "plots" / "simulation-flaw.svg", flaw_plot(flaws))


def replaced(page: str, name: str, text: str) -> str:
    """The page with what stands between the two marks of this name replaced."""
    before, start, rest = page.partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition(f"<!-- end of {name} -->")
    return "".join([before, start, text, end, after])


def defaults() -> str:
    """Every setting that names its source."""
    rows = ["| setting | `paper` | `small` | source |", "| --- | --- | --- | --- |"]
    for recipe in RECIPES:
        for setting in describe(recipe):
            if setting.paper:
                paper, small = (f"{setting.presets[preset]}" for preset in ("paper", "small"))
                rows.append(f"| {recipe}.{setting.name} | {paper} | {small} | {setting.paper} |")
    return "\n".join(rows) + "\n"


def loop_report(lines: Lines, plots: str) -> list[str]:
    """plots: their folder, from the page that the text is for."""
    seeds = sorted({line["seed"] for line in lines})
    starter = figures(lines, STARTER, 0)
    text = [f"Seeds {', '.join(map(str, seeds))}."]
    if starter:
        text.append(f"The starter's gold score is {mean_of(list(starter.values()))}.")
    text += ["", *rises(lines)]
    for name, (title, arms) in QUESTIONS.items():
        known = [arm for arm in arms if figures(lines, arm, 1)]
        if len(known) > 1:
            text += ["", f"### {title}", "", *table(lines, known), "", *(f"- *{arm}*: {ABOUT[arm]}" for arm in known)]
            text += ["", f"![{title}]({plots}/simulation-{name}.svg)"]
    return text


def figures(lines: Lines, arm: str, number: int, name: str = "gold") -> dict[int, float]:
    """seed -> the figure of that round."""
    if arm == BEST_OF_N:
        arm, name = ARMS[0].name, "best_of_n_gold"
    return {line["seed"]: line[name] for line in lines if line["arm"] == arm and line["round"] == number}


def rises(lines: Lines) -> list[str]:
    """What the default gains from round to round, seed by seed: the difference of the same seed's two rounds."""
    default, found = ARMS[0].name, []
    previous = figures(lines, STARTER, 0)
    for number in ROUNDS:
        now = figures(lines, default, number)
        both = now.keys() & previous.keys()
        if both:
            gain = mean_of([now[seed] - previous[seed] for seed in sorted(both)])
            found.append(f"- round {number}: {gain} over {'round ' + str(number - 1) if number > 1 else 'the starter'}")
        previous = now
    return ["The gold score of the default rises by, the same seed's rounds compared:", "", *found] if found else []


def table(lines: Lines, arms: Sequence[str]) -> list[str]:
    """Gold by round with intervals, and what differs from the first arm at the last round, seed by seed."""
    rows = [
        "| gold score | " + " | ".join(f"round {number}" for number in ROUNDS) + " | last round, over the first line |"
        " KL, nats | reward model's accuracy by gold | seeds |",
        "| --- " * (len(ROUNDS) + 5) + "|",
    ]
    last = ROUNDS[-1]
    base = figures(lines, arms[0], last)
    for arm in arms:
        cells = [shown(figures(lines, arm, number)) for number in ROUNDS]
        own = figures(lines, arm, last)
        both = sorted(own.keys() & base.keys())
        cells.append("-" if arm == arms[0] or not both else str(mean_of([own[seed] - base[seed] for seed in both])))
        for name in ("kl", "reward_gold_accuracy"):
            cells.append("-" if arm == BEST_OF_N else shown(figures(lines, arm, last, name)))
        rows.append(f"| {arm} | " + " | ".join([*cells, str(len(figures(lines, arm, ROUNDS[0])))]) + " |")
    return rows


def shown(by_seed: Mapping[int, float]) -> str:
    return str(mean_of(list(by_seed.values()))) if by_seed else "-"


def loop_plot(lines: Lines, title: str, arms: Sequence[str]) -> Plot:
    starter = figures(lines, STARTER, 0)
    return Plot(
        title=f"{title}: gold score",
        x_title="round",
        labels=[str(number) for number in ROUNDS],
        series={arm: [known(figures(lines, arm, number)) for number in ROUNDS] for arm in arms},
        references={"starter": mean_of(list(starter.values())).value} if starter else {},
    )


def known(by_seed: Mapping[int, float]) -> Mean | None:
    return mean_of(list(by_seed.values())) if by_seed else None
