"""What the reward models start from: a GPT-2 of one layer that knows words, by the table of a published encoder.

Its attention begins as a mean over all that was read (keys of 0 attend to all alike), so the state at the end of a text
is the text's mean word vector, in units of how much such means differ among texts. From there the recipe goes on: where
to look, what to make of order, what the score is. Nothing here has seen a judgement.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerBase,
)

from trainer.prompting import encode_completion, encode_prompt

SEED = 0
NUM_TEXTS = 1_000  # of the prose, to measure how much means differ
INIT = 0.02  # standard deviation of what starts at random, as GPT-2's
# Standard deviation of what the head reads, in each dimension. A head starts at random, and what it says then stays in
# the scores: the smaller what it reads, the less that is beside what is learned. 1, 0.3 and 0.1 were tried.
HEAD_INPUT = 0.1

Prose = Sequence[tuple[str, str]]


def make_base(work: Path, encoder: Path, prose: Prose) -> str:
    """The folder of the policy to start from. Made once.

    encoder: folder of a BERT whose tokens, word, position and first segment vectors and first norm are taken over.
    prose: (what is asked, what is said) of texts that have nothing to do with what is judged.
    """
    about = json.dumps([hashlib.sha256((encoder / "model.safetensors").read_bytes()).hexdigest(), prose])
    folder = work / f"words-{hashlib.sha256(about.encode()).hexdigest()[:16]}" / "result"
    if not (folder / "config.json").exists():
        tokenizer = AutoTokenizer.from_pretrained(encoder)
        tokenizer.eos_token = tokenizer.sep_token
        bert = AutoModel.from_pretrained(encoder)
        model = averaging(bert, tokenizer)
        standardise(model, list(means_of(bert, tokenizer, prose)))
        folder.mkdir(parents=True)
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)
    return str(folder)


@torch.no_grad()
def averaging(bert: BertModel, tokenizer: PreTrainedTokenizerBase) -> GPT2LMHeadModel:
    """A GPT-2 of one layer whose attention adds, to what a token is, the mean of the word vectors up to it."""
    config, words = bert.config, bert.embeddings
    torch.manual_seed(SEED)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.vocab_size,
            n_positions=config.max_position_embeddings,
            n_embd=config.hidden_size,
            n_layer=1,
            n_head=config.num_attention_heads,
            layer_norm_epsilon=1e-5,
            initializer_range=INIT,
            bos_token_id=tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    trunk, width = model.transformer, config.hidden_size
    trunk.wte.weight.copy_(words.word_embeddings.weight)
    trunk.wpe.weight.copy_(words.position_embeddings.weight + words.token_type_embeddings.weight[0])
    layer = trunk.h[0]
    layer.ln_1.weight.copy_(words.LayerNorm.weight)
    layer.ln_1.bias.copy_(words.LayerNorm.bias)
    layer.attn.c_attn.weight[:, width : 2 * width] = 0  # keys; queries stay random, or neither would ever learn
    layer.attn.c_attn.weight[:, 2 * width :] = torch.eye(width)  # values: what was read, as it is
    layer.attn.c_proj.weight.copy_(torch.eye(width))
    return model


@torch.no_grad()
def means_of(bert: BertModel, tokenizer: PreTrainedTokenizerBase, prose: Prose) -> Iterator[Tensor]:
    """(D,) the mean word vector of each text, as the layer's attention has it at the text's end."""
    limit = bert.config.max_position_embeddings
    for asked, said in [pair for pair in prose if pair[0]][:NUM_TEXTS]:
        ids = encode_prompt(tokenizer, [{"role": "user", "content": asked}]) + encode_completion(tokenizer, said)
        yield bert.embeddings(torch.tensor([ids[:limit]]))[0].mean(dim=0)


@torch.no_grad()
def standardise(model: GPT2LMHeadModel, means: Sequence[Tensor]) -> None:
    """What the attention adds gets mean 0 and variance 1 over the texts, in each dimension.

    All that differs between two texts would else be small beside what is common to all. Then scale what the head reads.
    """
    spread, mean = torch.std_mean(torch.stack(list(means)), dim=0)
    projection = model.transformer.h[0].attn.c_proj
    projection.weight.copy_(torch.diag(1 / spread))
    projection.bias.copy_(-mean / spread)
    model.transformer.ln_f.weight.fill_(HEAD_INPUT)
