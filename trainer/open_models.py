"""The models that a sampler holds open, on the device it samples on. Knows no database and no store."""

import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from transformers import GenerationConfig

from trainer import models
from trainer.completions_server import CompletionsServer
from trainer.decoding import Engine, LocalEngine, stop_ids_of
from trainer.doubts import Doubts, open_doubts
from trainer.inspect_policy import describe_policy
from trainer.model_shelf import ModelShelf
from trainer.openai_engine import OpenAIEngine
from trainer.prompting import decode_completion

log = logging.getLogger(__name__)

Files = TypeVar("Files", bound=Hashable)

NUM_POLICIES = 3


@dataclass(frozen=True)
class OpenPolicy:
    """A policy that is ready to sample."""

    engine: Engine
    tokenizer: Any
    tokenizer_sha256: str
    context_tokens: int | None

    def decode(self, ids: Sequence[int]) -> str:
        return decode_completion(self.tokenizer, ids)


class OpenModels(Generic[Files]):
    """Policies, a reward model and an ensemble, each opened once, by the files they open from."""

    def __init__(self, path_of: Callable[[Files], str], server: CompletionsServer | None) -> None:
        """path_of: where files are on this machine.  server: what holds the policies, where this process does not."""
        self.device = "cpu"
        self.policies = ModelShelf(self._open_policy, capacity=NUM_POLICIES)
        self.reward_models = ModelShelf(self._open_reward_model, capacity=1)
        self.ensembles = ModelShelf(self._open_doubts, capacity=1)
        self._path_of = path_of
        self._server = server

    def move_to(self, device: str) -> None:
        """Open what is asked for next on this device; what was open on another is let go."""
        if device != self.device:
            log.info("sampling on %s from here on", device)
            self.device = device
            self.policies.clear()
            self.reward_models.clear()
            self.ensembles.clear()
            torch.cuda.empty_cache()

    def _open_policy(self, files: Files) -> OpenPolicy:
        path = self._path_of(files)
        if self._server is not None:
            return open_policy_at(self._server, path)
        log.info("opening policy=%s device=%s", path, self.device)
        policy = models.load_policy(path, self.device, dtype_on(self.device))
        return OpenPolicy(
            engine=LocalEngine(policy.model, policy.tokenizer),
            tokenizer=policy.tokenizer,
            tokenizer_sha256=models.tokenizer_hash(policy.tokenizer),
            context_tokens=getattr(policy.model.config, "max_position_embeddings", None),
        )

    def _open_reward_model(self, files: Files) -> models.RewardModel:
        return models.load_reward_model(self._path_of(files), self.device, dtype_on(self.device))

    def _open_doubts(self, files: Files) -> Doubts:
        return open_doubts(self._path_of(files), self.device)


def open_policy_at(server: CompletionsServer, path: str) -> OpenPolicy:
    """A policy whose weights a server holds; its tokenizer and what ends its completions are read here."""
    found, tokenizer = describe_policy(path), models.load_tokenizer(path)
    return OpenPolicy(
        engine=OpenAIEngine(server, path, tokenizer, stop_ids_of(generation_config_at(path), tokenizer)),
        tokenizer=tokenizer,
        tokenizer_sha256=found.tokenizer_sha256,
        context_tokens=found.context_tokens,
    )


def generation_config_at(path: str) -> GenerationConfig | None:
    """What the policy says of how it is sampled from; None where it says nothing."""
    try:
        return GenerationConfig.from_pretrained(path)
    except OSError:  # that is how Transformers says that there is no such file
        return None


def dtype_on(device: str) -> torch.dtype:
    return torch.bfloat16 if device == "cuda" else torch.float32
