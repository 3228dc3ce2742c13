"""Looking at a policy before a project is made from it: the sampler does, this process opens no model."""

from app.policies.service import STARTER_SOURCE, InspectedPolicy
from app.projects.errors import PolicyNotUsable
from app.projects.starter import inspect_starter
from app.rounds.model_requests import ModelDidNotAnswer, ModelRefused, ask_and_wait
from app.rounds.models import ModelRequestKind

TIMEOUT_S = 120.0  # a hub's files may have to be fetched


def inspect(source: str) -> InspectedPolicy:
    """What is known of the policy: "starter", a folder, or a hub name. Raises PolicyNotUsable with the reason."""
    source = source.strip()
    if not source:
        raise PolicyNotUsable("Name a folder or a Hugging Face model, or choose the starter policy.")
    if source == STARTER_SOURCE:
        return inspect_starter()
    try:
        found = ask_and_wait(ModelRequestKind.INSPECT, {"source": source}, timeout_s=TIMEOUT_S)
    except (ModelRefused, ModelDidNotAnswer) as error:
        raise PolicyNotUsable(sentence(str(error))) from error
    return InspectedPolicy(
        source=found["source"],
        num_parameters=found["num_parameters"],
        context_tokens=found["context_tokens"],
        tokenizer_sha256=found["tokenizer_sha256"],
        facts=found["facts"],
    )


def sentence(message: str) -> str:
    """With a capital and a full stop."""
    message = message[:1].upper() + message[1:]
    return message if message.endswith((".", "!", "?")) else f"{message}."
