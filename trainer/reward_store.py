"""What a reward stage leaves, and how it is opened again: a plain classifier, and the adapters that it was made of.

`result/` opens with AutoModelForSequenceClassification: the only model, or an ensemble's first member, its adapter
added into the trunk. Under lora, `result/members/0`, `1`, … hold the adapters as PEFT opens them, and result.json names
their trunk, so that a policy stage on the same trunk holds its weights once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainer.adapters import AdapterMismatch, LoRA, fingerprint, load_adapter, saving_adapter, with_adapter
from trainer.errors import StageError
from trainer.models import Policy, classifier_on, load_policy, load_reward_model, saving, trunk_dtype
from trainer.reward_models import EnsembleRule, Scorer
from trainer.round_folder import read_json
from trainer.settings import STARTER


class FlatScores(StageError):
    """The reward model gives every completion the same score."""

    code = "flat_scores"

    def __init__(self, path: str) -> None:
        super().__init__(
            f"the reward model at {path} gives every completion the same score: there is nothing to learn from it",
            advice="fit a reward model to more rankings first",
        )


@dataclass(frozen=True)
class Members:
    """The reward models of a stage. trunk: the policy that all of them sit on; None where all weights learn."""

    models: list[PreTrainedModel]
    tokenizer: PreTrainedTokenizerBase
    trunk: Policy | None

    def together(self) -> nn.Module:
        """What is fitted at once."""
        return self.models[0] if len(self.models) == 1 else nn.ModuleList(self.models)

    def description(self, source: str, score_stds: Sequence[float]) -> dict[str, Any]:
        """What result.json says of the adapters. source: what the trunk opens with."""
        if self.trunk is None:
            return {}
        return {
            "trunk": {"source": source, "fingerprint": fingerprint(self.trunk.model)},
            "members": [
                {"folder": f"members/{number}", "score_std": score_std} for number, score_std in enumerate(score_stds)
            ],
        }


def save_members(members: Members, folder: Path, *, source: str) -> None:
    """Write the plain classifier and, under lora, the adapters. source: what the trunk opens with."""
    saving_members(members, source=source)(folder)


def saving_members(members: Members, *, source: str) -> Callable[[Path], None]:
    """What writes them as they are now. All processes call this together, and the first what it returns."""
    write_plain = saving(members.models[0], members.tokenizer)
    adapters = members.models if members.trunk is not None else []
    write_adapters = [saving_adapter(model, trunk=source) for model in adapters]

    def write(folder: Path) -> None:
        write_plain(folder)
        for number, write_adapter in enumerate(write_adapters):
            write_adapter(folder / "members" / str(number))

    return write


@dataclass(frozen=True)
class Opened:
    """The reward models of a stage's result, frozen, and what a value model needs to start from the first."""

    scorer: Scorer
    base: PreTrainedModel  # a classifier: the plain first member, or an empty one on the members' trunk
    adapter: Path | None  # the first member's, where it sits on that trunk as an adapter

    def start_value_model(self, lora: LoRA, *, seed: int) -> PreTrainedModel:
        """A value model that scores as the first member does and learns an adapter and a head of its own."""
        if self.adapter is not None:
            return load_adapter(self.base, self.adapter)
        return with_adapter(self.base, lora, seed=seed)


def load_scorer(
    path: str | Path,
    device: str = "cpu",
    *,
    rule: EnsembleRule = "mean",
    variance_penalty: float = 0.0,
    trunk: Policy | None = None,
) -> Scorer:
    """The reward models of a stage's result, frozen. See open_reward_models."""
    return open_reward_models(path, device, rule=rule, variance_penalty=variance_penalty, trunk=trunk).scorer


def open_reward_models(
    path: str | Path,
    device: str = "cpu",
    *,
    rule: EnsembleRule = "mean",
    variance_penalty: float = 0.0,
    trunk: Policy | None = None,
) -> Opened:
    """Open a stage's reward model or ensemble for scoring.

    trunk: a frozen policy that is open already; adapters that were fitted on it sit on it again. Otherwise an ensemble
    opens its own trunk, and one member alone its plain classifier.
    Raises ModelNotFound, UnsafeWeights, UnsupportedModel, FlatScores, AdapterMismatch.
    """
    described = describe(Path(path))
    members = described.get("members", [])
    fits = trunk is not None and members and fingerprint(trunk.model) == described["trunk"]["fingerprint"]
    if not fits and len(members) < 2:
        model = load_reward_model(path, device).model.requires_grad_(False)
        unit = unit_of(path, described.get("score_std", 1.0))  # a reward model from elsewhere is taken as it is
        return Opened(Scorer([model], [unit], rule, variance_penalty), model, None)
    base = classifier_on(trunk if trunk is not None and fits else open_trunk(Path(path), described["trunk"], device))
    folders = [Path(path) / member["folder"] for member in members]
    models = [load_adapter(base, folder).requires_grad_(False) for folder in folders]
    units = [unit_of(path, member["score_std"]) for member in members]
    return Opened(Scorer(models, units, rule, variance_penalty), base, folders[0])


def describe(path: Path) -> dict[str, Any]:
    """result.json; empty for a reward model from elsewhere."""
    return read_json(path / "result.json") if (path / "result.json").is_file() else {}


def is_ensemble(path: Path) -> bool:
    return len(describe(path).get("members", [])) > 1


def open_trunk(path: Path, trunk: dict[str, str], device: str) -> Policy:
    policy = load_policy(trunk_here(path, trunk["source"]), device, trunk_dtype(device))
    if fingerprint(policy.model) != trunk["fingerprint"]:
        raise AdapterMismatch(path, f"{trunk['source']} holds other weights by now")
    policy.model.requires_grad_(False)
    return policy


def trunk_here(result: Path, source: str) -> str:
    """What the trunk opens with on this machine; the one that fitted the adapters may have had it elsewhere.

    Below the artifacts a folder has the same name on all machines, and the starter policy comes with us.
    """
    if not Path(source).is_absolute() or Path(source).is_dir():
        return source
    if Path(source).parts[-3:] == (STARTER / "policy").parts[-3:]:
        return str(STARTER / "policy")
    artifacts = str(result.absolute()).rpartition("/projects/")[0]
    here = Path(artifacts, "projects", source.rpartition("/projects/")[2])
    return str(here) if here.is_dir() else source


def unit_of(path: str | Path, score_std: float) -> float:
    if not score_std > 0:
        raise FlatScores(str(path))
    return score_std
