"""The models of a policy stage: the policy that learns, the frozen one it is held near, who scores, who values.

Under full tuning those that learn have weights of their own. Under lora all sit on one trunk, with an adapter each; the
trunk itself is the reference, and in bf16 on a GPU.
"""

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from trainer import team
from trainer.adapters import LoRA, with_adapter
from trainer.models import Policy, load_policy, load_reward_model, trunk_dtype
from trainer.reward_models import EnsembleRule
from trainer.reward_store import Opened, is_ensemble, open_reward_models
from trainer.round_folder import Stage
from trainer.settings import TuningConfig
from trainer.sharding import shard


@dataclass(frozen=True)
class StageModels:
    """The models that every policy stage reads."""

    policy: Policy  # learns
    reference: Policy  # frozen: the SFT policy, which is where the policy started unless the stage says otherwise
    rewards: Opened  # frozen


def open_policy_to_learn(source: str, config: TuningConfig, *, device: str, seed: int) -> Policy:
    """The policy with what it learns: all its weights, or an adapter on them.

    Raises ModelNotFound, UnsafeWeights, UnsupportedModel.
    """
    place = host_or(device, config)
    if config.tuning == "full":
        policy = load_policy(source, place)
    else:
        policy = with_own_adapter(load_policy(source, place, trunk_dtype(device)), config, seed=seed)
    return Policy(divided(policy.model, device, config), policy.tokenizer)


def open_stage_models(
    stage: Stage, config: TuningConfig, *, rule: EnsembleRule = "mean", variance_penalty: float = 0.0
) -> StageModels:
    """Open a stage's models, weights that do not change once.

    Reads stage.models: policy, reward_model and, where the policy does not start as the reference, reference.
    Raises ModelNotFound, UnsafeWeights, UnsupportedModel, FlatScores, AdapterMismatch.
    """
    source = stage.models["policy"]
    reference_source = stage.models.get("reference", source)
    if is_divided(config):
        return open_divided_models(stage, config, rule=rule, variance_penalty=variance_penalty)
    if config.tuning == "full":
        policy, reference = load_policy(source, stage.device), load_policy(reference_source, stage.device)
    else:
        trunk = load_policy(source, stage.device, trunk_dtype(stage.device))
        policy = with_own_adapter(trunk, config, seed=stage.seed)
        same = reference_source == source
        reference = trunk if same else load_policy(reference_source, stage.device, trunk_dtype(stage.device))
    reference.model.requires_grad_(False)
    rewards = open_reward_models(
        stage.models["reward_model"], stage.device, rule=rule, variance_penalty=variance_penalty, trunk=reference
    )
    return StageModels(policy, reference, rewards)


def open_divided_models(
    stage: Stage, config: TuningConfig, *, rule: EnsembleRule, variance_penalty: float
) -> StageModels:
    """The same, each with weights of its own that are divided before the next is opened."""
    source = stage.models["policy"]
    policy = open_policy_to_learn(source, config, device=stage.device, seed=stage.seed)
    opened = load_policy(stage.models.get("reference", source), "cpu")
    reference = Policy(divided(opened.model.requires_grad_(False), stage.device, config), opened.tokenizer)
    return StageModels(
        policy, reference, open_rewards_apart(stage, config, rule=rule, variance_penalty=variance_penalty)
    )


def open_rewards_apart(
    stage: Stage, config: TuningConfig, *, rule: EnsembleRule = "mean", variance_penalty: float = 0.0
) -> Opened:
    """Frozen reward models with weights of their own, which are divided where the stage's are.

    But an ensemble's members share a trunk: they are held whole, and computed by each process at its own pace.
    Raises what open_stage_models does.
    """
    path = Path(stage.models["reward_model"])
    if is_ensemble(path):
        return open_reward_models(path, stage.device, rule=rule, variance_penalty=variance_penalty)
    rewards = open_reward_models(path, host_or(stage.device, config), rule=rule, variance_penalty=variance_penalty)
    divided(rewards.scorer.members[0], stage.device, config)
    return rewards


def open_value_model(stage: Stage, config: TuningConfig, rewards: Opened) -> PreTrainedModel:
    """A value model that starts as the reward model, an ensemble's first member, and learns apart from it."""
    if config.tuning == "lora":
        return rewards.start_value_model(lora_of(config), seed=stage.seed)
    value = load_reward_model(stage.models["reward_model"], host_or(stage.device, config)).model
    return divided(value, stage.device, config)


def is_divided(config: TuningConfig) -> bool:
    """Whether the stage's weights are to be divided, and there is somebody to divide them with."""
    return config.shard_weights and team.size() > 1


def host_or(device: str, config: TuningConfig) -> str:
    """Where a model is opened: one that will be divided in the host's memory, as it need not fit the device whole."""
    return "cpu" if is_divided(config) else device


def divided(model: PreTrainedModel, device: str, config: TuningConfig) -> PreTrainedModel:
    """The model, sharded where the stage asks for it. Raises CannotShard."""
    return shard(model, device) if is_divided(config) else model


def with_own_adapter(trunk: Policy, config: TuningConfig, *, seed: int) -> Policy:
    return Policy(with_adapter(trunk.model, lora_of(config), seed=seed), trunk.tokenizer)


def lora_of(config: TuningConfig) -> LoRA:
    return LoRA(config.lora_rank, config.lora_alpha)
