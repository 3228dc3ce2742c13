"""What the web asks of a model, answered: tokens counted, completions sampled and scored. Knows no database."""

from collections.abc import Mapping
from typing import Any

from trainer import scoring
from trainer.decoding import SampleRequest
from trainer.models import RewardModel
from trainer.open_models import OpenPolicy
from trainer.prompting import encode_completion, encode_prompt
from trainer.slates import text_of

Fields = Mapping[str, Any]  # of a request and of its answer, as JSON


def count_tokens(policy: OpenPolicy, input: Fields) -> dict[str, Any]:
    """Of `messages` as a prompt, or of a `text`. Raises PromptingError."""
    if "messages" in input:
        return {"num_tokens": len(encode_prompt(policy.tokenizer, input["messages"]))}
    return {"num_tokens": len(policy.tokenizer.encode(input["text"], add_special_tokens=False))}


def sample(policy: OpenPolicy, input: Fields) -> dict[str, Any]:
    """A completion of `messages` for each of the `seeds`."""
    request = SampleRequest(
        prompt_ids=encode_prompt(policy.tokenizer, input["messages"]),
        seeds=input["seeds"],
        temperature=input["temperature"],
        top_p=input["top_p"],
        max_completion_tokens=input["max_completion_tokens"],
    )
    completions = [
        {
            "text": text_of(completion, policy.decode),
            "token_ids": completion.token_ids or None,
            "finish_reason": completion.finish_reason,
            "logprob": completion.logprob,
            "seed": completion.seed,
        }
        for completion in policy.engine.sample([request])[0]
    ]
    return {"completions": completions, "tokenizer_sha256": policy.tokenizer_sha256}


def score(reward_model: RewardModel, input: Fields) -> dict[str, Any]:
    """The score of each of the `completions` of `messages`."""
    prompt_ids = encode_prompt(reward_model.tokenizer, input["messages"])
    completions = [encode_completion(reward_model.tokenizer, text) for text in input["completions"]]
    return {"scores": scoring.score_completions(reward_model.model, [prompt_ids], [completions]).tolist()}
