"""Reward models that are encoders (BERT, DeBERTa, RoBERTa …): to be judged by rankings, and never to be learned from.

Each reads a prompt and a completion as a pair, as its own tokenizer encodes one, with its own attention. Every token
sees every other, so a slate's completions cannot share their prompt: they are padded and computed side by side.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from trainer.errors import StageError
from trainer.models import UnsupportedModel, model_errors, tokenizer_errors
from trainer.ranked_slates import Slate
from trainer.stage_data import MALFORMED, Written, display_text, sentence


class ReadsPairs(StageError):
    """A stage was to learn from, or begin with, a reward model that is an encoder."""

    code = "reads_pairs"

    def __init__(self, path: str) -> None:
        super().__init__(
            f"the model at {path} is an encoder: it reads a prompt and a completion as a pair of texts, and shares no"
            " tokens with a policy",
            advice="evaluate it as it is; to learn from scores, fit a reward model: choose the stage reward",
        )


def load_pair_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of an encoder. Raises ModelNotFound, UnsupportedModel."""
    with tokenizer_errors(path):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(path), trust_remote_code=False)
    if tokenizer.pad_token_id is None:
        raise UnsupportedModel(str(path), "its tokenizer has no token to pad with")
    if 1 not in tokenizer("a", "a").sequence_ids(0):
        raise UnsupportedModel(str(path), "its tokenizer does not encode pairs of texts")
    return tokenizer


@dataclass
class PairEncoder:
    """Prompts and completions as an encoder reads them: what stands before the completion, and what follows.

    The parts of a pair are encoded apart, so what stands before it is the same for all completions of a prompt. A text
    that spells a special token ("[SEP]") says these letters: it cannot end its part or begin another.
    """

    tokenizer: Any
    left_out: Counter[str] = field(default_factory=Counter)
    _prompts: dict[int, list[int] | None] = field(default_factory=dict)

    def prompt(self, prompt_id: int, messages: Sequence[Mapping[str, str]]) -> list[int] | None:
        """The ids before a completion: one question as it is, a conversation as people read it."""
        if prompt_id not in self._prompts:
            is_malformed = not messages or messages[-1]["role"] == "assistant"
            self._prompts[prompt_id] = None if is_malformed else self._before(display_text(messages))
        if self._prompts[prompt_id] is None:
            self.left_out[MALFORMED] += 1
        return self._prompts[prompt_id]

    def completions(self, prompt_ids: Sequence[int], written: Iterable[Written]) -> list[list[int]]:
        """The ids of each completion, with what ends a pair; of an empty one that alone.

        A tokenizer takes an empty second text for none at all, and the prompt would be read as one that asks nothing.
        """
        num_before, ending = len(self._before("")), self._ending()
        return [self._pair("", completion.text)[0][num_before:] or ending for completion in written]

    def report(self, what: str) -> list[str]:
        """A sentence for each reason for which something was left out."""
        return [sentence(count, what, reason) for reason, count in self.left_out.items() if count]

    def _ending(self) -> list[int]:
        ids, belongs = self._pair("", "a")
        return ids[len(belongs) - belongs[::-1].index(1) :]

    def _before(self, text: str) -> list[int]:
        ids, belongs = self._pair(text, "a")
        return ids[: belongs.index(1)]

    def _pair(self, first: str, second: str) -> tuple[list[int], list[int | None]]:
        """The ids, and which of the two texts each belongs to: 0, 1, or None for what the tokenizer put there."""
        pair = self.tokenizer(first, second, split_special_tokens=True)
        ids: list[int] = []
        belongs: list[int | None] = []
        for id, text in zip(pair["input_ids"], pair.sequence_ids(0), strict=True):
            spelled = text is not None and id in self._structure  # some vocabularies hold the token's letters whole
            if not spelled or self.tokenizer.unk_token_id is not None:
                ids.append(self.tokenizer.unk_token_id if spelled else id)
                belongs.append(text)
        return ids, belongs

    @cached_property
    def _structure(self) -> set[int]:
        return set(self.tokenizer.all_special_ids) - {self.tokenizer.unk_token_id}


@dataclass(frozen=True)
class PairReader:
    """An open encoder."""

    model: PreTrainedModel
    tokenizer: Any
    max_tokens: int  # computed at once, padding included

    @property
    def context_tokens(self) -> int:
        """How many tokens of a pair it can read."""
        positions = getattr(self.model.base_model.embeddings, "position_embeddings", None)
        padding = positions.padding_idx if isinstance(positions, nn.Embedding) else None
        first = 0 if padding is None else padding + 1  # RoBERTa counts positions from there
        return int(min(self.model.config.max_position_embeddings - first, self.tokenizer.model_max_length))

    def costs(self, slates: Sequence[Slate]) -> list[int]:
        """Tokens of each slate: its prompt once for each completion, and padding."""
        return [max(map(len, _pairs_of(slate))) * len(slate.completion_ids) for slate in slates]

    def scores(self, slates: Sequence[Slate]) -> Tensor:
        """(M,) fp32 score of each completion of the slates."""
        pairs = [pair for slate in slates for pair in _pairs_of(slate)]
        types = [pair_types for slate in slates for pair_types in self._types_of(slate)]
        scores = torch.empty(len(pairs))
        for rows in batches_by_length([len(pair) for pair in pairs], self.max_tokens):
            read = {"input_ids": [pairs[row] for row in rows], "token_type_ids": [types[row] for row in rows]}
            known = {name: read[name] for name in read if name in self.tokenizer.model_input_names}
            batch = self.tokenizer.pad(known, return_tensors="pt").to(self.model.device)
            scores[rows] = self.model(**batch).logits[:, 0].float().cpu()
        return scores

    def _types_of(self, slate: Slate) -> Iterator[list[int]]:
        """Which of the two texts each token belongs to, as the tokenizer says it."""
        second = self.tokenizer("", "a", return_token_type_ids=True)["token_type_ids"][-1]
        for ids in slate.completion_ids:
            yield [0] * len(slate.prompt_ids) + [second] * len(ids)


def open_encoder(path: str | Path, device: str, max_tokens: int) -> PairReader:
    """An encoder, frozen, in fp32. Raises ModelNotFound, UnsafeWeights, UnsupportedModel."""
    with model_errors(path):
        model, found = AutoModelForSequenceClassification.from_pretrained(
            str(path), dtype=torch.float32, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    if found["missing_keys"]:  # they would be drawn at random
        raise UnsupportedModel(str(path), f"its weights lack {', '.join(sorted(found['missing_keys']))}")
    return PairReader(model.eval().requires_grad_(False).to(device), load_pair_tokenizer(path), max_tokens)


def batches_by_length(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Rows that are padded together, the longest first: together they have at most max_tokens, unless one alone has."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > max_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _pairs_of(slate: Slate) -> list[list[int]]:
    return [[*slate.prompt_ids, *ids] for ids in slate.completion_ids]
