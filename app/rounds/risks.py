"""Values of settings that experience or a paper warns of, and why. Pure; what is refused is the recipes' matter."""

from dataclasses import dataclass

from app.rounds.models import Recipe
from trainer.settings import Preset, describe

ONLINE = (Recipe.PPO, Recipe.GRPO)
IMPROVING = (*ONLINE, Recipe.REJECTION)
TRAINING = (Recipe.SFT, Recipe.REWARD, *IMPROVING)
RATE_FACTOR = 10  # above the default a learning rate is more often a slip than a wish


@dataclass(frozen=True)
class Risk:
    """What makes a value risky: it lies above or below a number, or is a certain word."""

    why: str
    above: float | None = None
    below: float | None = None
    equals: str | None = None

    @property
    def when(self) -> str:
        if self.above is not None:
            return f"above {self.above:g}"
        return f"below {self.below:g}" if self.below is not None else f"with {self.equals}"

    def holds(self, text: str) -> bool:
        """Whether the value that stands in a field, as text, is risky."""
        if self.equals is not None:
            return text.strip() == self.equals
        try:
            value = float(text)
        except ValueError:
            return False
        return (self.above is not None and value > self.above) or (self.below is not None and value < self.below)


RISKS: dict[tuple[Recipe, str], Risk] = {
    **{(each, "clip"): Risk("an update may then undo what clipping is for.", above=0.3) for each in ONLINE},
    **{
        (each, "kl_coef"): Risk("nothing but the KL budget then holds the policy near where it began.", below=1e-3)
        for each in ONLINE
    },
    **{
        (each, "kl_budget"): Risk("runs that reached 50 to 85 nats won less than 20 % (arXiv:2403.17031).", above=50)
        for each in IMPROVING
    },
    **{
        (each, "top_p"): Risk("the policy then learns from other odds than its own: updates are biased.", below=1)
        for each in ONLINE
    },
    **{(each, "num_epochs"): Risk("later passes learn from stale completions.", above=4) for each in ONLINE},
    **{(each, "missing_eos"): Risk("cutting off a bad answer can then pay.", equals="replace") for each in ONLINE},
    **{
        (each, "max_length_share"): Risk("a reward model that pays for length then goes unnoticed.", above=1)
        for each in ONLINE
    },
    **{
        (each, "start_from"): Risk(
            "what was over-optimised stays: gold score -0.06 against 0.448 from the SFT policy (arXiv:2505.18126).",
            equals="current",
        )
        for each in IMPROVING
    },
    (Recipe.REWARD, "labels"): Risk(
        "most labels are then not learned from: gold score 0.357 against 0.448 (arXiv:2505.18126).",
        equals="latest_round",
    ),
    (Recipe.REWARD, "num_epochs"): Risk("reward models overfit within a few passes (arXiv:2203.02155, C.2).", above=4),
    (Recipe.EVALUATE, "num_prompts"): Risk("the scores are then mostly chance.", below=50),
}


def risk_of(recipe: Recipe, name: str, preset: Preset) -> Risk | None:
    """What to beware of with this setting, if there is anything."""
    if name == "learning_rate" and recipe in TRAINING:
        default = next(each.presets[preset] for each in describe(recipe) if each.name == name)
        return Risk(
            f"that is {RATE_FACTOR} times the default: training may diverge.", above=RATE_FACTOR * float(default)
        )
    return RISKS.get((recipe, name))
