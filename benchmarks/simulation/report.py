"""The simulation's tables and plots, from the lines that its runs left; nothing is measured here."""

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.reward import machine, versions
from benchmarks.simulation.flaw import MAX_COMPLETION_TOKENS, NUM_SLATES, PPO, WORD_BONUS
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
FLAW = (
    f"Labelers who love length: each word adds {WORD_BONUS} to the gold utility, which itself likes 14 to 32 words and",
    f"takes 0.05 off for each one beyond. {NUM_SLATES} rankings without noise, half of each slate twice as long as the",
    f"policy writes; completions may have {MAX_COMPLETION_TOKENS} tokens; {PPO['num_steps']} steps of",
    f"{PPO['batch_size']} completions. Each seed runs twice on the same draws,",
    "with the stop rules of the preset `small` and without; gold is that of every look's held-out completions.",
)

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


def flaw_report(flaws: Lines, plots: str) -> list[str]:
    """Each run with the rules: where it stopped and why, and what gold had lost by then."""
    stopped, free = by_seed(flaws, rules=True), by_seed(flaws, rules=False)
    if not stopped:
        return []
    text = [
        "",
        "### A planted flaw",
        "",
        *FLAW,
        "",
        "| seed | stopped at step | because | gold: start | peak until then | at the stop | of the policy kept |"
        " without rules: peak | at the end |",
        "| --- " * 9 + "|",
    ]
    for seed, run in stopped.items():
        golds = {look["step"]: look["gold"] for look in run["looks"]}
        steps = list(golds)
        without = [look["gold"] for look in free[seed]["looks"]] if seed in free else []
        cells = [
            str(seed),
            str(steps[-1]),
            run["stopped"] or "no rule fired",
            f"{golds[steps[0]]:.2f}",
            f"{max(golds.values()):.2f}",
            f"{golds[steps[-1]]:.2f} ({golds[steps[-1]] / max(golds.values()) - 1:+.1%})",
            f"{golds[run['best_step']]:.2f}",
            f"{max(without):.2f}" if without else "-",
            f"{without[-1]:.2f} ({without[-1] / max(without) - 1:+.1%})" if without else "-",
        ]
        text.append("| " + " | ".join(cells) + " |")
    return [*text, "", f"![A planted flaw]({plots}/simulation-flaw.svg)"]


def by_seed(flaws: Lines, *, rules: bool) -> dict[int, Mapping[str, Any]]:
    return {line["seed"]: line for line in sorted(flaws, key=lambda line: line["seed"]) if line["rules"] == rules}


def flaw_plot(flaws: Lines) -> Plot:
    """Gold and the proxy's score over steps without rules, and gold where the rules let runs go on."""
    free, stopped = by_seed(flaws, rules=False), by_seed(flaws, rules=True)
    steps = sorted({look["step"] for run in [*free.values(), *stopped.values()] for look in run["looks"]})

    def means(runs: Mapping[int, Mapping[str, Any]], name: str) -> list[Mean | None]:
        """Where every run has a look: a mean over fewer and fewer of them would jump."""
        looks = [{look["step"]: look[name] for look in run["looks"]} for run in runs.values()]
        return [mean_of([own[step] for own in looks]) if all(step in own for own in looks) else None for step in steps]

    series = {"gold, with the stop rules": means(stopped, "gold")} if stopped else {}
    if free:
        series |= {"gold, without": means(free, "gold"), "reward model's score, without": means(free, "score")}
    return Plot(
        title="A reward model that loves length",
        x_title="step of PPO",
        labels=[str(step) for step in steps],
        series=series,
    )
