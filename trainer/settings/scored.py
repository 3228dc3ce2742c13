"""Settings of the recipes that improve a policy by scores, and of the one that judges it."""

from dataclasses import dataclass
from typing import ClassVar

from trainer.settings.fields import ConfigError, RecipeConfig, setting
from trainer.settings.fitted import FittedConfig, TuningConfig


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

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shard_weights and self.tuning == "lora":
            raise ConfigError(
                f"{self.recipe}.shard_weights",
                self.shard_weights,
                f"needs {self.recipe}.tuning=full: each process decodes from a whole trunk, and adapters add little",
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
    max_length_share: float = setting(
        0.5,
        "Stop when the change of length alone explains more than this share of the gain in held-out score: the reward"
        " model pays for length. Above 1 it rarely stops anything.",
        paper="arXiv:2310.03716: most of PPO's gain can be length; the share is ours: from 0.74 with a planted flaw, at"
        " most 0.12 without",
        above=0,
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
        small=3072,
        minimum=64,
    )
    checkpoint_every_steps: int = setting(10, "Steps between two resumable checkpoints.", small=5, minimum=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size % self.minibatch_size:
            raise ConfigError(
                f"{self.recipe}.minibatch_size",
                self.minibatch_size,
                f"must divide {self.recipe}.batch_size={self.batch_size}",
            )
        if self.minibatch_size % self.samples_per_prompt:
            raise ConfigError(
                f"{self.recipe}.samples_per_prompt",
                self.samples_per_prompt,
                f"must divide {self.recipe}.minibatch_size={self.minibatch_size}",
            )


@dataclass(frozen=True, kw_only=True)
class PPOConfig(PolicyConfig):
    """PPO: the policy improved against a frozen reward model, held near the reference policy by a KL penalty."""

    recipe: ClassVar[str] = "ppo"

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

    recipe: ClassVar[str] = "grpo"

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
class RejectionConfig(ScoredConfig, FittedConfig):
    """Rejection sampling: the best of n completions by score, and supervised fine-tuning on those."""

    recipe: ClassVar[str] = "rejection"

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


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(RecipeConfig):
    """Evaluation: the candidate against the current policy on test prompts, before people compare them blind."""

    recipe: ClassVar[str] = "evaluate"

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


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(RecipeConfig):
    """Scores: what a reward model makes of rankings that are there. No stage of a round: an evaluation's recipe."""

    recipe: ClassVar[str] = "score"

    micro_batch_tokens: int = setting(16384, "Tokens computed at once; lower it when memory runs out.", minimum=64)
