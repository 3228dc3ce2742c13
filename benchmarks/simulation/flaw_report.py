"""What the planted flaw did at each strength, as a table and a plot; nothing is measured here."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.simulation.flaw import MAX_COMPLETION_TOKENS, NUM_SLATES, PPO
from benchmarks.simulation.plots import Plot
from benchmarks.simulation.statistics import Mean, mean_of

FLAW = (
    "Labelers who love length: each word adds a bonus to the gold utility, which itself likes 14 to 32 words and",
    f"takes 0.05 off for each one beyond. {NUM_SLATES} rankings without noise, half of each slate twice as long as the",
    f"policy writes; completions may have {MAX_COMPLETION_TOKENS} tokens; {PPO['num_steps']} steps of",
    f"{PPO['batch_size']} completions, with the stop rules of the preset `small`. Gold is that of",
    f"{PPO['num_evaluation_prompts']} held-out completions at every second step.",
)

Lines = Sequence[Mapping[str, Any]]


def flaw_report(flaws: Lines, plots: str) -> list[str]:
    """For each strength of the flaw: where its runs stopped and why, and what gold had lost by then."""
    bonuses = sorted({line["bonus"] for line in flaws if line["rules"]})
    if not bonuses:
        return []
    free = [line for line in flaws if not line["rules"]]
    text = [
        "",
        "### A planted flaw",
        "",
        *FLAW,
        *(["Runs without the rules have the same draws and show what there was to lose."] if free else []),
        "",
        "| bonus a word | rules | gold: start | peak until the stop | at the stop | fall from the peak, % |"
        " of the policy kept | stopped at steps | because of | seeds |",
        "| --- " * 10 + "|",
        *(flaw_row([line for line in flaws if line["bonus"] == bonus and line["rules"]]) for bonus in bonuses),
    ]
    if free:
        text.append(flaw_row(free))
    return [*text, "", f"![A planted flaw]({plots}/simulation-flaw.svg)"]


def flaw_row(runs: Lines) -> str:
    """One strength, means over its seeds. A seed's peak is its own: the highest of its looks, noise and all."""
    golds = [{look["step"]: look["gold"] for look in run["looks"]} for run in runs]
    first, last = [own[min(own)] for own in golds], [own[max(own)] for own in golds]
    peak = [max(own.values()) for own in golds]
    steps = sorted(max(own) for own in golds)
    cells = [
        f"{runs[0]['bonus']:g}",
        "on" if runs[0]["rules"] else "off",
        mean_of(first),
        mean_of(peak),
        mean_of(last),
        mean_of([100 * (1 - after / before) for after, before in zip(last, peak, strict=True)]),
        mean_of([own[run["best_step"]] for own, run in zip(golds, runs, strict=True)]),
        ", ".join(map(str, steps)),
        ", ".join(f"{name} {count} ×" for name, count in Counter(rule_of(run["stopped"]) for run in runs).items()),
        len(runs),
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


RULES = {  # words of its sentence -> the rule
    "KL": "KL",
    "went from": "length",
    "change of length": "gain by length",
    "disagree": "disagreement",
    "end by themselves": "EOS",
}


def rule_of(sentence: str) -> str:
    """The rule that a stage's sentence on why it stopped comes from."""
    return next((rule for words, rule in RULES.items() if words in sentence), "no gain" if sentence else "no rule")


def flaw_plot(flaws: Lines) -> Plot:
    """Gold at each strength where the rules let runs go on; gold and the proxy's score of the runs without."""
    steps = sorted({look["step"] for run in flaws for look in run["looks"]})

    def means(runs: Lines, name: str) -> list[Mean | None]:
        """Where every run has a look: a mean over fewer and fewer of them would jump."""
        looks = [{look["step"]: look[name] for look in run["looks"]} for run in runs]
        return [mean_of([own[step] for own in looks]) if all(step in own for own in looks) else None for step in steps]

    series = {
        f"gold, bonus {bonus:g}": means([run for run in flaws if run["rules"] and run["bonus"] == bonus], "gold")
        for bonus in sorted({run["bonus"] for run in flaws if run["rules"]})
    }
    if free := [run for run in flaws if not run["rules"]]:
        strength = f"bonus {free[0]['bonus']:g}, no rules"
        series |= {f"gold, {strength}": means(free, "gold"), f"reward model's score, {strength}": means(free, "score")}
    return Plot(
        title="A reward model that loves length",
        x_title="step of PPO",
        labels=[str(step) for step in steps],
        series=series,
    )
