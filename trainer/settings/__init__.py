"""The recipes' settings: frozen dataclasses whose fields carry their help, their source and their limits.

The web form and `--set reward.learning_rate=1e-4` are both made from what stands here, so a setting is written once.
Standard library only: the web product imports this package and never torch.
"""

from pathlib import Path

from trainer.settings.fields import ConfigError, Preset, RecipeConfig, Value
from trainer.settings.fitted import FittedConfig, RewardConfig, SFTConfig, TuningConfig
from trainer.settings.reading import (
    RECIPES,
    SAME_RESULT,
    SMALL_MODEL_PARAMETERS,
    SettingDescription,
    config_class_of,
    describe,
    parse_assignments,
    preset_for,
    recipe_config,
)
from trainer.settings.scored import (
    EvaluateConfig,
    GRPOConfig,
    PolicyConfig,
    PPOConfig,
    RejectionConfig,
    ScoreConfig,
    ScoredConfig,
)

__all__ = [
    "RECIPES",
    "SAME_RESULT",
    "SMALL_MODEL_PARAMETERS",
    "STARTER",
    "ConfigError",
    "EvaluateConfig",
    "FittedConfig",
    "GRPOConfig",
    "PPOConfig",
    "PolicyConfig",
    "Preset",
    "RecipeConfig",
    "RejectionConfig",
    "RewardConfig",
    "SFTConfig",
    "ScoreConfig",
    "ScoredConfig",
    "SettingDescription",
    "TuningConfig",
    "Value",
    "config_class_of",
    "describe",
    "parse_assignments",
    "preset_for",
    "recipe_config",
]

# The tiny default policy with its prompts and guidelines: policy/, prompts.jsonl, guidelines.md.
STARTER = Path(__file__).parents[1] / "starter"
