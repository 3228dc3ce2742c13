"""Charts of what a stage measures: which numbers stand together, drawn as SVG on the server.

An SVG in an <img> needs no script and no style of the page, prints, and follows light and dark by itself.
See docs/decisions/0003-charts.md.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree  # to write, never to read

import pygal
from pygal.etree import etree as pygal_etree
from pygal.style import Style

pygal_etree.to_etree()  # the standard library's, also where lxml is installed, whose comments svg_of could not write
# pygal leaves an import hook of Python 2's kind behind, which makes every later failed import of the process a warning.
sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != "PluginImportFixer"]

Series = Sequence[tuple[int, float]]  # (step, value), by step

MOST_POINTS = 400  # a line: more than a chart has pixels for, and slow to draw


@dataclass(frozen=True)
class Chart:
    """Numbers of one unit that are read together. series: metric -> what its line is called."""

    key: str
    title: str
    unit: str
    series: Mapping[str, str]
    help: str = ""
    x_title: str = "step"


UNCHARTED = {"num_completions"}  # how far sampling is: a number, and no line

# In the order in which a stage is judged by them.
CHARTS = (
    Chart(
        "accuracy",
        "Accuracy",
        "share of pairs",
        {"train_accuracy": "train", "validation_accuracy": "validation"},
        "How often the better completion scores higher. InstructGPT's labelers agree with each other on 0.73.",
    ),
    Chart(
        "score",
        "Score",
        "reward model, normalised",
        {
            "score": "rollouts",
            "held_out_score": "validation",
            "held_out_reward": "validation, cut-off ones penalised",
            "held_out_finished_score": "validation, finished ones",
        },
        "Should rise. The validation prompts choose the checkpoint that is kept.",
    ),
    Chart(
        "kl",
        "KL to the reference policy",
        "nats per completion",
        {"kl": "rollouts", "kl_k3": "rollouts, estimator k3", "held_out_kl": "validation"},
        "How far the policy has moved. The stage stops at its KL budget.",
    ),
    Chart(
        "disagreement",
        "Disagreement of the reward models",
        "deviation of the score",
        {"disagreement": "rollouts", "held_out_disagreement": "validation"},
        "Rises where the policy writes what they were not fitted to. The stage stops at its limit.",
    ),
    Chart(
        "best_of_n",
        "Best of n",
        "reward model, normalised",
        {"sampled_score": "sampled", "chosen_score": "chosen"},
        "What the chosen completions score above all that were sampled: the most that learning from them can give.",
    ),
    Chart("loss", "Loss", "nats", {"loss": "train", "validation_loss": "validation"}),
    Chart("policy_loss", "Policy loss", "", {"policy_loss": "policy"}),
    Chart(
        "ptx_loss",
        "Loss on pretraining text",
        "nats per token",
        {"ptx_loss": "text"},
        "Rises where the policy forgets what it was pretrained on.",
    ),
    Chart("value_loss", "Value loss", "", {"value_loss": "value"}),
    Chart(
        "explained_variance",
        "Value explained variance",
        "share",
        {"explained_variance": "value model"},
        "1: the value model foresees the returns; 0 or below: it is no help.",
    ),
    Chart(
        "entropy",
        "Entropy",
        "nats per token",
        {"entropy": "rollouts"},
        "A fall towards 0 is a policy that repeats itself.",
    ),
    Chart(
        "clip_fraction",
        "Clip fraction",
        "share of tokens",
        {"clip_fraction": "policy", "value_clip_fraction": "value"},
        "Above 0.3 the updates are too large: lower the learning rate.",
    ),
    Chart("approx_kl", "KL within a step", "nats per token", {"approx_kl": "old to new policy"}),
    Chart(
        "length",
        "Completion length",
        "tokens",
        {
            "completion_tokens": "rollouts",
            "held_out_tokens": "validation",
            "held_out_geometric_tokens": "validation, finished ones, geometric mean",
        },
    ),
    Chart(
        "length_slope",
        "What length is worth",
        "score per unit of log length",
        {"held_out_length_slope": "validation"},
        "How much more a longer completion scores than a shorter one: 0 where length does not matter.",
    ),
    Chart(
        "length_share",
        "Gain that length alone explains",
        "share of the gain in score",
        {"held_out_length_share": "validation"},
        "Near 1 the reward model pays for length and not for answers. The stage stops at its limit.",
    ),
    Chart("eos_rate", "Finished completions", "share", {"eos_rate": "rollouts", "held_out_eos_rate": "validation"}),
    Chart("kl_coef", "KL coefficient", "", {"kl_coef": "coefficient"}),
    Chart("learning_rate", "Learning rate", "", {"learning_rate": "policy", "value_learning_rate": "value model"}),
    Chart(
        "gradient_norm",
        "Gradient norm",
        "before clipping",
        {"gradient_norm": "model", "policy_gradient_norm": "policy", "value_gradient_norm": "value model"},
    ),
    Chart(
        "ratio_error",
        "Probability ratio before the first update",
        "distance from 1",
        {"ratio_error": "largest of a token"},
        "Must be 0: the stage stops where it is not.",
    ),
    Chart(
        "sampler_gap",
        "Sampling against training",
        "nats per token",
        {"sampler_gap": "rollouts", "server_gap": "probe of a completions server"},
        "How far the sampler's probabilities are from those of training, which are what is learned from.",
    ),
    Chart("tokens_per_s", "Speed", "tokens/s", {"tokens_per_s": "all phases"}),
    Chart("episodes_per_s", "Completions learned from", "a second", {"episodes_per_s": "all phases"}),
    Chart(
        "mfu",
        "Model FLOPs utilisation",
        "share of the matrix rate",
        {"mfu": "whole step"},
        "Work that the model needs, over what this machine multiplies in the same time (arXiv:2204.02311, appendix B).",
    ),
    Chart("memory", "Peak memory", "MB", {"memory_mb": "process", "device_memory_mb": "device"}),
    Chart(
        "seconds",
        "Time per phase",
        "s",
        {
            "hand_over_s": "hand over weights",
            "sample_s": "sample",
            "score_s": "score",
            "update_s": "update",
            "evaluate_s": "evaluate",
            "save_s": "save",
            "step_s": "whole step",
        },
    ),
)

WIDTH, HEIGHT = 560, 300
LEGEND_COLUMNS = {2: 2, 3: 3, 4: 2, 5: 5, 6: 3}  # by lines; pygal leaves room for whole rows only

# Colours that keep 3:1 against both papers are few: each theme has its own.
LIGHT = ("#2d51c4", "#b3541e", "#14693f", "#8a3ffc", "#a92019", "#565d69")
DARK = ("#93abff", "#f0a270", "#74d3a0", "#c8a2ff", "#ff9188", "#a6adba")


def charts_of(metrics: Sequence[str]) -> list[Chart]:
    """The charts that these metrics fill, then one of its own for each number that belongs to none."""
    present = set(metrics) - UNCHARTED
    known = [chart for chart in CHARTS if present & set(chart.series)]
    placed = {name for chart in known for name in chart.series}
    others = [
        Chart(name, name.replace("_", " ").capitalize(), "", {name: name})
        for name in metrics
        if name not in placed | UNCHARTED
    ]
    return known + others


def chart_named(key: str, metrics: Sequence[str]) -> Chart | None:
    """The chart of this key among those that the metrics fill."""
    return next((chart for chart in charts_of(metrics) if chart.key == key), None)


def draw(chart: Chart, series: Mapping[str, Series]) -> bytes:
    """The chart as an SVG document. series: metric -> its points; metrics without points are left out."""
    lines = [(label, series[name]) for name, label in chart.series.items() if series.get(name)]
    drawing = pygal.XY(
        width=WIDTH,
        height=HEIGHT,
        css=["file://style.css", "file://graph.css", f"inline:{colours(range(len(lines)))}"],
        js=[],  # its tooltips would be a script from elsewhere
        no_prefix=True,
        style=Style(font_family="system-ui, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif", transition="none"),
        show_dots=max((len(points) for _, points in lines), default=0) < 2,
        show_legend=len(lines) > 1,
        legend_at_bottom=True,
        legend_at_bottom_columns=LEGEND_COLUMNS.get(len(lines), 1),
        legend_box_size=10,
        x_title=chart.x_title,
        truncate_legend=-1,
        margin=8,
        margin_bottom=16,
        spacing=8,
        show_y_guides=True,
        max_scale=6,
        value_formatter=short,
        x_value_formatter=short,
        no_data_text="Nothing yet",
    )
    for label, points in lines:
        drawing.add(label, thinned(points))
    return svg_of(drawing)


def svg_of(drawing: Any) -> bytes:
    """A pygal chart as a document that runs nothing."""
    tree = drawing.render_tree()
    for parent in tree.iter():
        for script in parent.findall("script"):  # its settings, for a script that we do not load
            parent.remove(script)
    svg: bytes = ElementTree.tostring(tree, encoding="utf-8", xml_declaration=True)
    return svg


def thinned(points: Series) -> list[tuple[int, float]]:
    """Every n-th point and the last one, MOST_POINTS or a few more."""
    stride = -(-len(points) // MOST_POINTS)
    chosen = list(points[::stride]) if stride else []
    return chosen if not points or chosen[-1] == points[-1] else [*chosen, points[-1]]


def short(value: float) -> str:
    """Few digits: 12, 0.25, 3e-06."""
    if value and (abs(value) < 0.001 or abs(value) >= 1_000_000):
        return f"{value:.1e}"
    return f"{value:.4g}"


def colours(places: Sequence[int]) -> str:
    """The styles of both themes, for the embedded document alone. places: of each line's colour among the theme's."""
    return theme("#ffffff", "#1a1c21", "#565d69", "#dfe1e6", LIGHT, places) + (
        "@media (prefers-color-scheme: dark) {" + theme("#1a1d23", "#e8eaef", "#a6adba", "#30353f", DARK, places) + "}"
    )


def theme(paper: str, ink: str, quiet: str, guide: str, palette: Sequence[str], places: Sequence[int]) -> str:
    rules = [
        f"svg {{ background-color: {paper}; }}",
        f".graph > .background, .plot > .background {{ fill: {paper}; }}",
        f".title, .legends .legend text, text.no_data {{ fill: {ink}; font-size: 13px; }}",
        f".axis text, .axis text.major {{ fill: {quiet}; font-size: 12px; font-weight: 400; }}",
        f".axis .line, .axis .major.line {{ stroke: {guide}; }}",
        f".axis .guide.line, .axis .major.guide.line {{ stroke: {guide}; stroke-dasharray: none; }}",
        ".reactive { fill-opacity: 1; stroke-opacity: 1; }",
    ]
    for position, place in enumerate(places):
        colour = palette[place % len(palette)]
        rules.append(
            f".color-{position}, .color-{position} a:visited {{ stroke: {colour}; fill: {colour}; }}"
            f" .series.serie-{position} .line {{ stroke-width: 2; fill: none; }}"
            f" .legends .legend .color-{position} {{ stroke: none; }}"
        )
    return "\n".join(rules)
