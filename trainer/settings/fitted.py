"""Settings of the recipes that train, and of the two that fit a model to what people wrote and ranked."""

from dataclasses import dataclass
from typing import ClassVar

from trainer.settings.fields import ConfigError, RecipeConfig, setting


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
        "Processes that share the stage, one a GPU: batches and sampling are divided. Each holds all weights unless"
        " those are sharded.",
        minimum=1,
        maximum=1024,
    )
    shard_weights: bool = setting(
        False,
        "Divide weights, gradients and optimiser state over the processes, for models that do not fit one GPU; layers"
        " are sent between GPUs all the time. The gradient stays the same.",
        paper="arXiv:2304.11277",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shard_weights and self.num_processes == 1:
            raise ConfigError(
                f"{self.recipe}.shard_weights",
                self.shard_weights,
                f"needs {self.recipe}.num_processes above 1: weights are divided over processes",
            )

    def rate(self, learning_rate: float) -> float:
        """The learning rate that holds for what is trained."""
        return learning_rate * self.lora_rate_factor if self.tuning == "lora" else learning_rate


@dataclass(frozen=True, kw_only=True)
class FittedConfig(TuningConfig):
    """What every recipe shares that fits a model to fixed data in passes over it (trainer.fitting)."""

    # Each recipe has defaults of its own for these three.
    batch_size: int  # examples per optimiser step
    num_epochs: int  # passes over the data, at most
    learning_rate: float  # the highest
    final_learning_rate: float = setting(
        0.1,
        "Where the cosine ends, as a share of the learning rate.",
        paper="InstructGPT, arXiv:2203.02155, C.1 and C.2",
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
    checkpoint_every_steps: int = setting(50, "Steps between two resumable checkpoints.", minimum=1)


@dataclass(frozen=True, kw_only=True)
class SFTConfig(FittedConfig):
    """Supervised fine-tuning on demonstrations: the loss counts completion tokens only, their EOS included."""

    recipe: ClassVar[str] = "sft"

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


@dataclass(frozen=True, kw_only=True)
class RewardConfig(FittedConfig):
    """Reward model: fitted to the comparisons implied by rankings, all completions of a slate at once."""

    recipe: ClassVar[str] = "reward"

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
    warmup: float = setting(
        0.0,
        "Share of all steps during which the learning rate rises from 0.",
        small=0.05,
        paper="InstructGPT, arXiv:2203.02155, C.2: none",
        minimum=0,
        maximum=0.5,
    )
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
        if self.num_members > 1 and self.shard_weights:
            raise ConfigError(
                "reward.shard_weights", self.shard_weights, "needs reward.num_members=1: members share a trunk"
            )
