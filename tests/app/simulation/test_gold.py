import dataclasses
import json
from itertools import combinations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from app.simulation.gold import Traits, gold_preference, gold_utility, traits_of
from trainer.starter import POLICY_PATH, PROMPTS_PATH

PROMPT = "Hello. How often should I walk my puppy? Thank you!"
GOOD = "Of course, I am glad to help. Walk your puppy three times a day for twenty minutes. Would you like more tips?"

WORSE = {
    "relevance": GOOD.replace("Walk your puppy three times a day for twenty minutes", "Paint it twice in three hours"),
    "courtesy": GOOD.replace("Of course, I am glad to help", "That is a silly question"),
    "completeness": GOOD.removesuffix(" tips?"),
    "specificity": GOOD.replace("three times a day for twenty minutes", "somehow when it is fine to go out there"),
    "detail": "Sure, walk your puppy three times.",
    "invitation": GOOD.replace(" Would you like more tips?", " Puppies love company."),
    "repetition": GOOD.replace(" Would you", " Walk your puppy three times a day for twenty minutes. Would you"),
    "contradiction": GOOD.replace(" Would you", " Do not walk your puppy three times. Would you"),
}


@pytest.mark.parametrize("trait", WORSE)
def test_a_completion_that_is_worse_in_one_trait_is_preferred_less(trait: str) -> None:
    assert getattr(traits_of(PROMPT, WORSE[trait]), trait) != getattr(traits_of(PROMPT, GOOD), trait)
    assert gold_preference(PROMPT, GOOD, WORSE[trait]) == 1.0
    assert gold_preference(PROMPT, WORSE[trait], GOOD) == 0.0


def test_equal_completions_are_a_tie() -> None:
    assert gold_preference(PROMPT, GOOD, GOOD) == 0.5


def test_the_right_amount_of_detail_is_neither_the_least_nor_the_most() -> None:
    brief, right, long = ("Walk a puppy. " * 1, "word " * 20, "word " * 60)
    details = [traits_of(PROMPT, text).detail for text in (brief, right, long)]
    assert details[1] == 1.0 > max(details[0], details[2])


def test_precise_advice_about_something_else_is_worth_less_than_about_the_question() -> None:
    on_topic, elsewhere = (
        "Walk your puppy for ten minutes twice a day.",
        "Fry it in butter for ten minutes twice a day.",
    )
    bland_on_topic, bland_elsewhere = "Walk your puppy when it is fine.", "Fry it in butter when it is fine."
    gain = gold_utility(PROMPT, on_topic) - gold_utility(PROMPT, bland_on_topic)
    assert gain > gold_utility(PROMPT, elsewhere) - gold_utility(PROMPT, bland_elsewhere)


@pytest.mark.parametrize("text", ["", "   ", "?!", "\N{REPLACEMENT CHARACTER}", "ok"])
def test_any_text_can_be_judged(text: str) -> None:
    assert gold_utility(text, text) < gold_utility(PROMPT, GOOD)


@pytest.fixture(scope="module")
def starter_pairs() -> list[tuple[str, str, str]]:
    """Pairs of completions that the starter policy samples for the same prompt, at temperature 1."""
    tokenizer = AutoTokenizer.from_pretrained(POLICY_PATH, padding_side="left")
    policy = AutoModelForCausalLM.from_pretrained(POLICY_PATH)
    prompts = [json.loads(line)["prompt"] for line in PROMPTS_PATH.read_text(encoding="utf-8").splitlines()[:60]]
    chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
    inputs = tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    )
    torch.manual_seed(7)
    ids = policy.generate(
        **inputs, do_sample=True, top_k=0, top_p=1.0, temperature=1.0, num_return_sequences=5, max_new_tokens=48
    )
    texts = tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    slates = [(prompt, texts[5 * i : 5 * i + 5]) for i, prompt in enumerate(prompts)]
    return [(prompt, a, b) for prompt, slate in slates for a, b in combinations(slate, 2)]


def test_neither_length_nor_any_single_trait_orders_three_quarters_of_the_starters_pairs_as_gold_does(
    starter_pairs: list[tuple[str, str, str]],
) -> None:
    features = [field.name for field in dataclasses.fields(Traits)]
    agreement = dict.fromkeys([*features, "length"], 0.0)
    decided = [pair for pair in starter_pairs if gold_preference(*pair) != 0.5]
    for prompt, a, b in decided:
        values = [dataclasses.asdict(traits_of(prompt, text)) | {"length": len(text)} for text in (a, b)]
        for feature in agreement:
            difference = values[0][feature] - values[1][feature]
            same_order = (difference > 0) == (gold_preference(prompt, a, b) == 1.0)
            agreement[feature] += (0.5 if difference == 0 else float(same_order)) / len(decided)
    # either direction: a rule "the shorter is the better" must fail as well
    strongest = {feature: max(share, 1 - share) for feature, share in agreement.items()}
    assert max(strongest.values()) < 0.75, strongest


def test_completions_of_the_starter_differ_so_that_there_is_something_to_prefer(
    starter_pairs: list[tuple[str, str, str]],
) -> None:
    undecided = sum(gold_preference(*pair) == 0.5 for pair in starter_pairs)
    assert undecided / len(starter_pairs) < 0.05
