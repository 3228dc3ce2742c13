"""The starter's tokenizer: byte-level BPE, trained in seconds, with a chat template and a pad of its own."""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PAD, EOS = "<|pad|>", "<|end|>"  # two tokens: a pad that is also the end would hide the end from a reward model
ROLES = ("system", "user", "assistant")
# <|user|>Hi!<|assistant|>Yes?<|end|>Why?<|assistant|> …: the end of a reply hands over to the person, so that what the
# policy makes of its own reply, and a reward model reads there, is what it needs to foresee the person's next word.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if not (message['role'] == 'user' and loop.previtem and loop.previtem['role'] == 'assistant') %}"
    "{{ '<|' + message['role'] + '|>' }}"
    "{% endif %}"
    "{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int, max_length: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of vocab_size tokens: any text can be encoded, and common words are one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, EOS, *(f"<|{role}|>" for role in ROLES)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        additional_special_tokens=[f"<|{role}|>" for role in ROLES],
        chat_template=CHAT_TEMPLATE,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
