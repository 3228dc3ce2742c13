"""The recipes' settings: frozen dataclasses whose fields carry their help, their source and their limits.

The web form and `--set reward.learning_rate=1e-4` are both made from what stands here, so a setting is written once.
Standard library only: the web product imports this module and never torch.
"""

import dataclasses
import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

Value = int | float | bool | str
Preset = Literal["small", "paper"]

SMALL_MODEL_PARAMETERS = 100_000_000  # `small` holds below this many parameters

# The tiny default policy with its prompts and guidelines: policy/, prompts.jsonl, guidelines.md.
STARTER = Path(__file__).parent / "starter"


class ConfigError(ValueError):
    """A setting is unknown, cannot be read, or breaks its rule."""

    code = "bad_setting"

    def __init__(self, setting: str, value: object, rule: str) -> None:
        super().__init__(f"{setting}={value} {rule}")
        self.setting, self.value, self.rule = setting, value, rule


def setting(
    default: Value,
    help: str,
    *,
    small: Value | None = None,
    paper: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A dataclass field for one setting.

    default: the value of the preset `paper`.  small: the value of the preset `small`, where it differs.
    paper: where the default comes from.  minimum, maximum: inclusive limits.  above: an exclusive lower limit.
    """
    metadata = {
        "help": help,
        "paper": paper,
        "minimum": minimum,
        "maximum": maximum,
        "above": above,
        "choices": choices,
        "presets": {"paper": default, "small": default if small is None else small},
    }
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class RecipeConfig:
    """What every recipe's settings share: they are checked once, when they are made."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check_value(f"{recipe_of(type(self))}.{field.name}", field, getattr(self, field.name))


def check_value(name: str, field: "dataclasses.Field[Any]", value: object) -> None:
    """Raises ConfigError when the value has the wrong type or lies outside the field's limits."""
    limits = field.metadata
    if not isinstance(value, field.type if isinstance(field.type, type) else type(field.default)):
        raise ConfigError(name, value, f"must be {article(type(field.default).__name__)}")
    if limits["choices"] and value not in limits["choices"]:
        raise ConfigError(name, value, f"must be one of {', '.join(limits['choices'])}")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return
    if not math.isfinite(value):
        raise ConfigError(name, value, "must be a finite number")
    if limits["minimum"] is not None and value < limits["minimum"]:
        raise ConfigError(name, value, f"must be at least {limits['minimum']:g}")
    if limits["above"] is not None and value <= limits["above"]:
        raise ConfigError(name, value, f"must be above {limits['above']:g}")
    if limits["maximum"] is not None and value > limits["maximum"]:
        raise ConfigError(name, value, f"must be at most {limits['maximum']:g}")


def article(kind: str) -> str:
    return {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}[kind]


@dataclass(frozen=True, kw_only=True)
class TuningConfig(RecipeConfig):
    """What every recipe that trains a model shares: whether all its weights learn, or an adapter on a frozen trunk."""

    tuning: str = setting(
        "full",
        "All weights (full), or low-rank adapters on a trunk that all models of the stage share (lora): a fraction of"
        " the memory.",
        paper="arXiv:2106.09685",
        choices=("full", "lora"),
    )
    lora_rank: int = setting(
        16, "Rank of the adapters, on every matrix of the trunk.", paper="arXiv:2106.09685", minimum=1, maximum=1024
    )
    lora_alpha: int = setting(
        32, "Scale of the adapters: their product counts alpha / rank times.", paper="arXiv:2106.09685", minimum=1
    )
    lora_rate_factor: float = setting(
        10.0,
        "Learning rates are this much higher under lora.",
        paper="Schulman et al. 2025, LoRA without regret: its best rate is about ten times that of full fine-tuning",
        above=0,
    )
    gradient_checkpointing: bool = setting(
        False,
        "Throw away what layers computed and compute it again for the gradient: a fraction of the memory of"
        " activations, a step takes about a third longer. The gradient stays the same.",
        paper="arXiv:1604.06174",
    )

    num_processes: int = setting(
        1,
        "Processes that share the stage, one a GPU. Each holds all weights; batches and sampling are divided.",
        minimum=1,
        maximum=1024,
    )

    def rate(self, learning_rate: float) -> float:
        """The learning rate that holds for what is trained."""
        return learning_rate * self.lora_rate_factor if self.tuning == "lora" else learning_rate


@dataclass(frozen=True, kw_only=True)
class SFTConfig(TuningConfig):
    """Supervised fine-tuning on demonstrations: the loss counts completion tokens only, their EOS included."""

    batch_size: int = setting(
        32, "Demonstrations per optimiser step.", small=16, paper="InstructGPT, arXiv:2203.02155, C.1", minimum=1
    )
    num_epochs: int = setting(
        3,
        "Passes over the demonstrations, at most: the pass with the lowest validation loss is kept.",
        paper="InstructGPT trains 16 and chooses by reward-model score; 1 to 3 is usual since",
        minimum=1,
        maximum=100,
    )
    learning_rate: float = setting(
        9.65e-6, "Highest learning rate.", small=5e-4, paper="InstructGPT, arXiv:2203.02155, C.1", above=0, maximum=1
    )
    final_learning_rate: float = setting(
        0.1,
        "Where the cosine ends, as a share of the learning rate.",
        paper="InstructGPT, arXiv:2203.02155, C.1",
        minimum=0,
        maximum=1,
    )
    warmup: float = setting(
        0.03, "Share of all steps during which the learning rate rises from 0.", minimum=0, maximum=0.5
    )
    weight_decay: float = setting(0.0, "AdamW weight decay of the matrices.", minimum=0, maximum=1)
    max_gradient_norm: float = setting(1.0, "Gradients longer than this are scaled down to it.", above=0)
    evaluations_per_epoch: int = setting(2, "Looks at the validation split in each pass.", minimum=1)
    patience: int = setting(
        2, "Stop after this many looks at the validation split in a row without a better one.", minimum=1
    )
    micro_batch_tokens: int = setting(
        16384, "Tokens computed at once; lower it when memory runs out. The gradient stays the same.", minimum=64
    )
    turns: str = setting(
        "last",
        "Which turns of a conversation are learned from: the demonstration at its end (last), or the assistant's"
        " earlier turns too (all).",
        choices=("last", "all"),
    )
    select_by: str = setting(
        "loss",
        "What chooses the pass that is kept: the loss on the validation split, or the reward model's score of"
        " completions sampled on validation prompts.",
        paper="InstructGPT chooses by score, arXiv:2203.02155, 3.5",
        choices=("loss", "score"),
    )
    num_evaluation_prompts: int = setting(
        256, "Validation prompts sampled from when the score chooses, at most.", small=128, minimum=1
    )
    max_completion_tokens: int = setting(
        256, "Length limit of those completions, in tokens.", small=48, minimum=1, maximum=100_000
    )
    checkpoint_every_steps: int = setting(50, "Steps between two resumable checkpoints.", minimum=1)


@dataclass(frozen=True, kw_only=True)
class RewardConfig(TuningConfig):
    """Reward model: fitted to the comparisons implied by rankings, all completions of a slate at once."""

    batch_size: int = setting(
        64,
        "Rankings per optimiser step, each with all its K completions.",
        small=16,
        paper="InstructGPT, arXiv:2203.02155, C.2",
        minimum=1,
    )
    num_epochs: int = setting(
        1,
        "Passes over the rankings, at most: the best look at the validation split is kept.",
        small=2,
        paper="InstructGPT, arXiv:2203.02155, C.2: more than one overfits a large model",
        minimum=1,
        maximum=100,
    )
    learning_rate: float = setting(
        9e-6, "Highest learning rate.", small=3e-4, paper="InstructGPT, arXiv:2203.02155, C.2", above=0, maximum=1
    )
    final_learning_rate: float = setting(
        0.1,
        "Where the cosine ends, as a share of the learning rate.",
        paper="InstructGPT, arXiv:2203.02155, C.2",
        minimum=0,
        maximum=1,
    )
    warmup: float = setting(
        0.0,
        "Share of all steps during which the learning rate rises from 0.",
        small=0.05,
        paper="InstructGPT, arXiv:2203.02155, C.2: none",
        minimum=0,
        maximum=0.5,
    )
    weight_decay: float = setting(0.0, "AdamW weight decay of the matrices.", minimum=0, maximum=1)
    max_gradient_norm: float = setting(1.0, "Gradients longer than this are scaled down to it.", above=0)
    labels: str = setting(
        "all",
        "Which rankings are learned from: all so far (all), or those that no earlier round knew (latest_round).",
        paper="arXiv:2505.18126: gold score 0.448 with all labels, 0.357 with the last ones only",
        choices=("all", "latest_round"),
    )
    num_members: int = setting(
        1,
        "Reward models fitted together, as adapters on one trunk (lora); 4 say how sure they are.",
        paper="arXiv:2310.02743",
        minimum=1,
        maximum=16,
    )
    ties: str = setting(
        "skip",
        "What a tie teaches: nothing (skip), or half a comparison each way (half).",
        paper="InstructGPT drops ties",
        choices=("skip", "half"),
    )
    use_margins: bool = setting(
        False,
        "Ask a ranking's better completion to win by its stated strength.",
        paper="Llama 2, arXiv:2307.09288, 3.2.2",
    )
    evaluations_per_epoch: int = setting(4, "Looks at the validation split in each pass.", minimum=1)
    patience: int = setting(
        4, "Stop after this many looks at the validation split in a row without a lower loss.", minimum=1
    )
    micro_batch_tokens: int = setting(
        16384, "Tokens computed at once; lower it when memory runs out. The gradient stays the same.", minimum=64
    )
    num_normalisation_completions: int = setting(
        256,
        "Completions of the reference policy sampled on validation prompts; their scores' spread goes to PPO.",
        small=128,
        minimum=2,
    )
    max_completion_tokens: int = setting(
        256, "Length limit of those completions, in tokens.", small=48, minimum=1, maximum=100_000
    )
    checkpoint_every_steps: int = setting(50, "Steps between two resumable checkpoints.", small=25, minimum=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_members > 1 and self.tuning != "lora":
            raise ConfigError("reward.num_members", self.num_members, "needs reward.tuning=lora: members share a trunk")


@dataclass(frozen=True, kw_only=True)
class ScoredConfig(TuningConfig):
    """What every recipe shares that improves a policy by scores: where it starts, and what its completions score."""

    start_from: str = setting(
        "sft",
        "Which policy a round starts from: the SFT policy (sft), or the one that labelers see now (current)."
        " The KL is measured from the SFT policy in both.",
        paper="arXiv:2505.18126: gold score 0.448 from the SFT policy with all labels, -0.06 continuing the last",
        choices=("sft", "current"),
    )
    ensemble_rule: str = setting(
        "mean",
        "How the scores of an ensemble become one: their mean, the worst, or the mean less a penalty for their"
        " variance. One reward model alone is not affected.",
        paper="arXiv:2310.02743, 3",
        choices=("mean", "worst", "variance"),
    )
    variance_penalty: float = setting(
        0.1, "That penalty, under the rule variance.", paper="arXiv:2310.02743, lambda", minimum=0
    )


@dataclass(frozen=True, kw_only=True)
class PolicyConfig(ScoredConfig):
    """What PPO and GRPO share: a policy samples, its completions are scored, and it learns from them."""

    num_steps: int = setting(
        500,
        "Steps, each of which samples a batch and learns from it; fewer when a stop rule ends the stage.",
        small=24,
        paper="InstructGPT, arXiv:2203.02155, C.4: 256,000 episodes",
        minimum=1,
    )
    batch_size: int = setting(
        512,
        "Completions sampled per step.",
        small=128,
        paper="InstructGPT, arXiv:2203.02155, C.4",
        minimum=2,
    )
    minibatch_size: int = setting(
        64,
        "Completions per gradient update; must divide the batch size.",
        paper="InstructGPT, arXiv:2203.02155, C.4",
        minimum=1,
    )
    samples_per_prompt: int = setting(
        1,
        "Completions sampled of each prompt, which is computed once for all of them; must divide the minibatch size.",
        small=4,
        paper="InstructGPT samples one",
        minimum=1,
    )
    num_epochs: int = setting(
        1,
        "Passes over each batch of completions.",
        small=2,
        paper="InstructGPT and Llama 2: 1; arXiv:2403.17031: 4",
        minimum=1,
        maximum=100,
    )
    max_completion_tokens: int = setting(
        256, "Length limit of a completion, in tokens.", small=48, minimum=1, maximum=100_000
    )
    temperature: float = setting(
        1.0, "Sampling temperature; logits are divided by it when learning too.", above=0, maximum=10
    )
    top_p: float = setting(
        1.0, "Share of the probability mass sampled from; below 1 the updates are biased.", above=0, maximum=1
    )
    learning_rate: float = setting(
        3e-6,
        "Highest learning rate of the policy.",
        small=3e-4,
        paper="1e-6 to 3e-6 is usual for full fine-tuning",
        above=0,
        maximum=1,
    )
    warmup_updates: int = setting(
        10, "Gradient updates over which the learning rates rise from 0; constant afterwards.", minimum=0
    )
    max_gradient_norm: float = setting(1.0, "Gradients longer than this are scaled down to it.", above=0)
    clip: float = setting(
        0.2, "How far an update may move a token's probability ratio from 1.", paper="arXiv:1707.06347", above=0
    )
    ema_decay: float = setting(
        0.0,
        "The result is a running average of the policy's weights, which keeps this share of itself at each update;"
        " evaluations are of the average. 0: no average. 0.992 is usual.",
        paper="InstructGPT, arXiv:2203.02155, C.4: 0.992",
        minimum=0,
        maximum=0.99999,
    )
    missing_eos: str = setting(
        "penalise",
        "Score of a completion that was cut off: min(score, batch mean) - 1 (penalise), or a constant (replace).",
        paper="replacing, as arXiv:2403.17031 does, rewards cutting off a bad answer",
        choices=("penalise", "replace"),
    )
    missing_eos_score: float = setting(-1.0, "That constant, in units of the normalised score.")
    kl_budget: float = setting(
        30.0,
        "KL to the reference policy at which the stage stops, in nats per completion.",
        small=4.5,
        paper="arXiv:2403.17031: a run that reached 50 to 85 won less than 20 %",
        above=0,
    )
    patience: int = setting(5, "Stop after this many evaluations in a row without a better held-out score.", minimum=1)
    max_disagreement_factor: float = setting(
        2.0,
        "Stop when the members of an ensemble disagree this many times as much as at the start: their scores are of"
        " texts that they were not fitted to. One reward model alone never disagrees.",
        paper="arXiv:2310.02743: over-optimised completions are those that members disagree on; the factor is ours",
        above=1,
    )
    max_length_factor: float = setting(
        2.0,
        "Stop when held-out completions are this many times as long as at the start, or as short.",
        paper="arXiv:2310.03716: reward models pay for length; the factor is ours",
        above=1,
    )
    max_eos_drop: float = setting(
        0.2,
        "Stop when the share of held-out completions that end by themselves falls by more than this.",
        paper="ours: what is cut off was not finished, whatever its score",
        above=0,
        maximum=1,
    )
    evaluate_every_steps: int = setting(10, "Steps between two evaluations on validation prompts.", small=5, minimum=1)
    num_evaluation_prompts: int = setting(256, "Validation prompts used, at most.", small=128, minimum=1)
    micro_batch_tokens: int = setting(
        16384,
        "Tokens computed at once; lower it when memory runs out. The gradient stays the same.",
        small=2048,
        minimum=64,
    )
    checkpoint_every_steps: int = setting(10, "Steps between two resumable checkpoints.", small=5, minimum=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        recipe = recipe_of(type(self))
        if self.batch_size % self.minibatch_size:
            raise ConfigError(
                f"{recipe}.minibatch_size", self.minibatch_size, f"must divide {recipe}.batch_size={self.batch_size}"
            )
        if self.minibatch_size % self.samples_per_prompt:
            raise ConfigError(
                f"{recipe}.samples_per_prompt",
                self.samples_per_prompt,
                f"must divide {recipe}.minibatch_size={self.minibatch_size}",
            )


@dataclass(frozen=True, kw_only=True)
class PPOConfig(PolicyConfig):
    """PPO: the policy improved against a frozen reward model, held near the reference policy by a KL penalty."""

    value_learning_rate: float = setting(
        9e-6,
        "Highest learning rate of the value model.",
        small=5e-4,
        paper="InstructGPT, arXiv:2203.02155, C.4",
        above=0,
        maximum=1,
    )
    value_warmup_steps: int = setting(0, "Steps at the start in which only the value model learns.", small=1, minimum=0)
    value_clip: float = setting(
        0.2,
        "How far an update may move a token's value from what it was.",
        paper="InstructGPT, arXiv:2203.02155, C.4",
        above=0,
    )
    gamma: float = setting(1.0, "Discount of later rewards.", paper="InstructGPT: none", minimum=0, maximum=1)
    gae_lambda: float = setting(
        0.95,
        "GAE lambda: 1 trusts the rewards alone, 0 the value model alone.",
        paper="arXiv:1506.02438",
        minimum=0,
        maximum=1,
    )
    kl_control: str = setting(
        "fixed",
        "Whether the KL coefficient stays, or adapts to hold the KL at its target.",
        paper="arXiv:1909.08593, 2.2",
        choices=("fixed", "adaptive"),
    )
    kl_coef: float = setting(
        0.02,
        "KL penalty per nat, in units of the normalised score; where an adaptive coefficient starts.",
        small=0.15,
        paper="InstructGPT, arXiv:2203.02155, C.4",
        minimum=0,
    )
    kl_target: float = setting(
        6.0, "KL that an adaptive coefficient aims at, in nats per completion.", paper="arXiv:1909.08593", above=0
    )
    ptx_coef: float = setting(
        0.0,
        "PPO-ptx: weight of the loss on pretraining text beside that of PPO, against forgetting. 0: none. 27.8 is"
        " InstructGPT's.",
        paper="InstructGPT, arXiv:2203.02155, eq. 2 and C.4",
        minimum=0,
    )
    ptx_ratio: int = setting(
        8, "Pretraining texts per completion in an update.", paper="InstructGPT, arXiv:2203.02155, C.4", minimum=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.value_warmup_steps >= self.num_steps:
            raise ConfigError(
                "ppo.value_warmup_steps", self.value_warmup_steps, f"must be below ppo.num_steps={self.num_steps}"
            )


@dataclass(frozen=True, kw_only=True)
class GRPOConfig(PolicyConfig):
    """GRPO: completions of one prompt are judged against each other, so no value model is needed."""

    batch_size: int = setting(
        1024, "Completions sampled per step.", small=128, paper="DeepSeekMath, arXiv:2402.03300, 4.2", minimum=2
    )
    minibatch_size: int = setting(
        1024,
        "Completions per gradient update; must divide the batch size.",
        small=64,
        paper="DeepSeekMath, arXiv:2402.03300, 4.2: one update a step",
        minimum=2,
    )
    samples_per_prompt: int = setting(
        64,
        "Completions sampled of each prompt, whose scores are compared; must divide the minibatch size.",
        small=8,
        paper="DeepSeekMath, arXiv:2402.03300, 4.2",
        minimum=2,
    )
    learning_rate: float = setting(
        1e-6,
        "Highest learning rate of the policy.",
        small=3e-4,
        paper="DeepSeekMath, arXiv:2402.03300, 4.2",
        above=0,
        maximum=1,
    )
    kl_coef: float = setting(
        0.04,
        "Weight of the KL to the reference policy in the loss, per nat a token.",
        small=0.15,
        paper="DeepSeekMath, arXiv:2402.03300, 4.2",
        minimum=0,
    )
    divide_by_std: bool = setting(
        True,
        "Divide a completion's advantage by the standard deviation of its prompt's scores, so that prompts whose"
        " completions score alike count as much as others.",
        paper="DeepSeekMath, arXiv:2402.03300, 4.1.2; arXiv:2503.20783 advises against it",
    )
    loss_mean: str = setting(
        "tokens",
        "What the loss is a mean of: all tokens of an update (tokens), or the means of its completions (sequences),"
        " in which a long one's tokens count less.",
        paper="sequences: DeepSeekMath, arXiv:2402.03300, eq. 3; tokens: DAPO, arXiv:2503.14476, 3.3",
        choices=("tokens", "sequences"),
    )


@dataclass(frozen=True, kw_only=True)
class RejectionConfig(ScoredConfig):
    """Rejection sampling: the best of n completions by score, and supervised fine-tuning on those."""

    samples_per_prompt: int = setting(
        16,
        "Completions sampled of each prompt, of which the best is learned from.",
        small=8,
        paper="Llama 2, arXiv:2307.09288, figure 7: up to 100",
        minimum=2,
        maximum=1000,
    )
    num_prompts: int = setting(
        20_000, "Prompts of the train split sampled from, at most; drawn by the seed.", small=512, minimum=1
    )
    prompts_per_chunk: int = setting(256, "Prompts sampled and scored between two saved points.", small=64, minimum=1)
    max_completion_tokens: int = setting(
        256, "Length limit of a completion, in tokens.", small=48, minimum=1, maximum=100_000
    )
    temperature: float = setting(
        1.0,
        "Sampling temperature.",
        paper="Llama 2, arXiv:2307.09288, 3.2.3: 1.2 to 1.3 is best for 10 to 100 completions",
        above=0,
        maximum=10,
    )
    top_p: float = setting(1.0, "Share of the probability mass sampled from.", above=0, maximum=1)
    batch_size: int = setting(
        64, "Chosen completions per optimiser step.", small=16, paper="Llama 2, arXiv:2307.09288, 3.1", minimum=1
    )
    num_epochs: int = setting(
        2,
        "Passes over the chosen completions, at most: the look with the highest held-out score is kept.",
        paper="Llama 2, arXiv:2307.09288, 3.1",
        minimum=1,
        maximum=100,
    )
    learning_rate: float = setting(
        2e-5, "Highest learning rate.", small=5e-4, paper="Llama 2, arXiv:2307.09288, 3.1", above=0, maximum=1
    )
    final_learning_rate: float = setting(
        0.1, "Where the cosine ends, as a share of the learning rate.", minimum=0, maximum=1
    )
    warmup: float = setting(
        0.03, "Share of all steps during which the learning rate rises from 0.", minimum=0, maximum=0.5
    )
    weight_decay: float = setting(0.0, "AdamW weight decay of the matrices.", minimum=0, maximum=1)
    max_gradient_norm: float = setting(1.0, "Gradients longer than this are scaled down to it.", above=0)
    kl_budget: float = setting(
        30.0,
        "KL to the reference policy beyond which no policy is kept and the stage stops, in nats per completion.",
        small=4.5,
        paper="as for PPO",
        above=0,
    )
    num_evaluation_prompts: int = setting(256, "Validation prompts used, at most.", small=128, minimum=1)
    evaluations_per_epoch: int = setting(2, "Looks at the validation prompts in each pass.", small=4, minimum=1)
    patience: int = setting(3, "Stop after this many looks in a row without a better held-out score.", minimum=1)
    micro_batch_tokens: int = setting(
        16384, "Tokens computed at once; lower it when memory runs out. The gradient stays the same.", minimum=64
    )
    checkpoint_every_steps: int = setting(50, "Steps between two resumable checkpoints.", minimum=1)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(RecipeConfig):
    """Evaluation: the candidate against the current policy on test prompts, before people compare them blind."""

    num_prompts: int = setting(500, "Test prompts used, at most.", minimum=1)
    max_completion_tokens: int = setting(
        256, "Length limit of a completion, in tokens.", small=48, minimum=1, maximum=100_000
    )
    temperature: float = setting(
        1.0, "Temperature of the sampled completions; each prompt gets a greedy one too.", above=0, maximum=10
    )
    top_p: float = setting(1.0, "Share of the probability mass sampled from.", above=0, maximum=1)
    best_of: int = setting(
        4,
        "Completions of the reference policy from which the baseline takes the best by score.",
        paper="best-of-n, arXiv:2009.01325",
        minimum=2,
        maximum=64,
    )
    micro_batch_tokens: int = setting(16384, "Tokens computed at once; lower it when memory runs out.", minimum=64)


RECIPES: dict[str, type[RecipeConfig]] = {
    "sft": SFTConfig,
    "reward": RewardConfig,
    "ppo": PPOConfig,
    "grpo": GRPOConfig,
    "rejection": RejectionConfig,
    "evaluate": EvaluateConfig,
}


def recipe_of(config_class: type[RecipeConfig]) -> str:
    return next(recipe for recipe, known in RECIPES.items() if known is config_class)


def config_class_of(recipe: str) -> type[RecipeConfig]:
    """Raises ConfigError if there is no such recipe."""
    if recipe not in RECIPES:
        raise ConfigError("recipe", recipe, f"must be one of {', '.join(RECIPES)}")
    return RECIPES[recipe]


def preset_for(num_parameters: int) -> Preset:
    """The preset that holds for a model of this size: `small` was measured on the starter policy."""
    return "small" if num_parameters < SMALL_MODEL_PARAMETERS else "paper"


def recipe_config(recipe: str, preset: str, overrides: Mapping[str, str | int | float | bool]) -> RecipeConfig:
    """The settings of a recipe: a preset, and what was set otherwise.

    overrides: setting (without the recipe's name) -> value, as text or as itself.
    Raises ConfigError for an unknown recipe, preset or setting, or a value that breaks its rule.
    """
    config_class = config_class_of(recipe)
    if preset not in ("small", "paper"):
        raise ConfigError("preset", preset, "must be one of small, paper")
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    values = {name: field.metadata["presets"][preset] for name, field in fields.items()}
    for name, given in overrides.items():
        if name not in fields:
            raise ConfigError(f"{recipe}.{name}", given, f"is no setting of {recipe}{suggestion(name, fields)}")
        values[name] = read_value(f"{recipe}.{name}", type(fields[name].default), given)
    return config_class(**values)


def suggestion(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def read_value(name: str, kind: type, given: str | int | float | bool) -> Value:
    """A value in the field's type; numbers and texts are read, nothing is rounded. Raises ConfigError."""
    if isinstance(given, str):
        given = given.strip()
    if kind is str:
        return str(given)
    if kind is bool:
        known = {
            "true": True,
            "yes": True,
            "on": True,
            "1": True,
            "false": False,
            "no": False,
            "off": False,
            "0": False,
        }
        if str(given).lower() not in known:
            raise ConfigError(name, given, "must be true or false")
        return known[str(given).lower()]
    try:
        number = float(given)
    except ValueError:
        raise ConfigError(name, given, f"must be {article(kind.__name__)}") from None
    if kind is float:
        return number
    if not number.is_integer():
        raise ConfigError(name, given, "must be a whole number")
    return int(number)


@dataclass(frozen=True, kw_only=True)
class SettingDescription:
    """One setting as a form shows it. kind: int, float, bool or choice."""

    name: str
    kind: Literal["int", "float", "bool", "choice"]
    help: str
    paper: str
    minimum: float | None
    maximum: float | None
    above: float | None
    choices: tuple[str, ...]
    presets: Mapping[str, Value]  # preset -> the value it gives


def describe(recipe: str) -> list[SettingDescription]:
    """All settings of a recipe, in the order of its form. Raises ConfigError if there is no such recipe."""
    return [describe_field(field) for field in dataclasses.fields(config_class_of(recipe))]


def describe_field(field: "dataclasses.Field[Any]") -> SettingDescription:
    kind = "choice" if field.metadata["choices"] else type(field.default).__name__
    return SettingDescription(
        name=field.name, kind=cast(Literal["int", "float", "bool", "choice"], kind), **field.metadata
    )


def parse_assignments(assignments: Iterable[str]) -> dict[str, dict[str, str]]:
    """`["reward.learning_rate=1e-4", ...]` as recipe -> setting -> value, not yet checked against the recipe.

    Raises ConfigError for what is not of the form recipe.setting=value.
    """
    overrides: dict[str, dict[str, str]] = {}
    for assignment in assignments:
        left, equals, value = assignment.partition("=")
        recipe, dot, name = left.strip().partition(".")
        if not (equals and dot and name):
            raise ConfigError("--set", assignment, "must read recipe.setting=value")
        config_class_of(recipe)
        overrides.setdefault(recipe, {})[name] = value.strip()
    return overrides
