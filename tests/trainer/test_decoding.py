import itertools
import math

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from tests.trainer.tiny import tiny_config
from trainer import decoding
from trainer.choosing import choose_tokens
from trainer.decoding import LocalEngine, SampleRequest, stop_token_ids
from trainer.lanes import NonFiniteLogits, Stepping
from trainer.prompting import PromptTooLong

EOS, VOCABULARY = 1, 40


class Tokenizer:
    eos_token_id = EOS


@pytest.fixture(params=["llama", "gpt2", "qwen2", "opt"])
def model(request):
    """A random model whose logits are spread enough that its completions differ and end."""
    torch.manual_seed(0)
    if request.param == "llama":
        config = LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            initializer_range=0.3,
            eos_token_id=EOS,
            bos_token_id=None,
        )
        return LlamaForCausalLM(config).eval()
    if request.param in ("qwen2", "opt"):
        torch.manual_seed(1)
        config = tiny_config(request.param)
        config.vocab_size, config.init_std, config.initializer_range = VOCABULARY, 0.2, 0.5
        return AutoModelForCausalLM.from_config(config).eval()
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=64,
        initializer_range=0.3,
        eos_token_id=EOS,
        bos_token_id=None,
    )
    return GPT2LMHeadModel(config).eval()


def request_of(prompt, seeds=(7,), **settings):
    return SampleRequest(prompt_ids=prompt, seeds=seeds, **{"max_completion_tokens": 12} | settings)


RAGGED = [[5], [9, 3, 4, 8, 8, 2, 30, 31, 32], [6, 7], [9, 3, 4, 8, 8, 2, 30, 31, 33], [11] * 5]


def logprobs_one_token_at_a_time(model, prompt, completion, temperature=1.0):
    """The oracle: no cache, no batch, no padding."""
    result = []
    for position in range(len(completion)):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + completion[:position]])).logits[0, -1]
        result.append(torch.log_softmax(logits / temperature, dim=-1)[completion[position]].item())
    return result


def test_a_completion_is_the_same_alone_and_in_a_ragged_batch(model):
    engine = LocalEngine(model, Tokenizer)
    requests = [request_of(prompt, seeds=(3, 4), temperature=0.7 + 0.1 * i) for i, prompt in enumerate(RAGGED)]
    together = engine.sample(requests)
    assert len({tuple(c.token_ids) for slate in together for c in slate}) > len(RAGGED)  # they do differ
    for request, slate in zip(requests, together, strict=True):
        for seed, completion in zip(request.seeds, slate, strict=True):
            [[alone]] = engine.sample([request_of(list(request.prompt_ids), (seed,), temperature=request.temperature)])
            assert completion.token_ids == alone.token_ids
            assert completion.finish_reason == alone.finish_reason
            assert completion.logprobs == pytest.approx(alone.logprobs, abs=1e-5, rel=1e-5)


def test_each_completion_is_told_once_the_moment_it_is_finished(model):
    told = []
    requests = [request_of(prompt, seeds=(3, 4, 5)) for prompt in RAGGED]
    sampled = LocalEngine(model, Tokenizer).sample(
        requests, lambda request, completion: told.append((request, completion))
    )
    everything = [(request, completion) for request, slate in enumerate(sampled) for completion in slate]
    assert sorted(told, key=lambda t: (t[0], t[1].seed)) == everything
    lengths = [len(completion.token_ids) for _, completion in told]
    assert lengths == sorted(lengths)  # decoded together: the shortest come first
    assert lengths[0] < lengths[-1]


def test_two_threads_give_what_one_gives(model, monkeypatch):
    monkeypatch.setattr(decoding, "SMALL_STEP", 0)  # this model's steps are
    engine = LocalEngine(model, Tokenizer)
    requests = [request_of(prompt, seeds=(3, 4)) for prompt in RAGGED]
    alone = engine.sample(requests)
    torch.set_num_threads(2)
    try:
        together = engine.sample(requests)
    finally:
        torch.set_num_threads(1)
    assert [[c.token_ids for c in slate] for slate in together] == [[c.token_ids for c in slate] for slate in alone]


@pytest.mark.parametrize(("small_step", "expected"), [(None, {1}), (0, {2})])
def test_small_steps_take_one_thread_and_the_others_are_given_back(model, monkeypatch, small_step, expected):
    if small_step is not None:
        monkeypatch.setattr(decoding, "SMALL_STEP", small_step)
    seen = set()
    model.register_forward_pre_hook(lambda *_: seen.add(torch.get_num_threads()))
    torch.set_num_threads(2)
    try:
        LocalEngine(model, Tokenizer).sample([request_of(RAGGED[0], seeds=(3, 4))])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert seen == expected


def test_the_logprobs_are_those_of_a_plain_forward_at_the_same_temperature(model):
    requests = [request_of(prompt, seeds=(1, 2), temperature=1.3, top_p=0.9) for prompt in RAGGED]
    for request, slate in zip(requests, LocalEngine(model, Tokenizer).sample(requests), strict=True):
        for completion in slate:
            expected = logprobs_one_token_at_a_time(model, list(request.prompt_ids), completion.token_ids, 1.3)
            assert completion.logprobs == pytest.approx(expected, abs=1e-5)


def test_greedy_takes_the_likeliest_token_each_time(model):
    prompt = RAGGED[1]
    [[completion]] = LocalEngine(model, Tokenizer).sample([request_of(prompt, temperature=0.0)])
    expected = []
    while len(expected) < 12 and EOS not in expected:
        with torch.no_grad():
            expected.append(int(model(torch.tensor([prompt + expected])).logits[0, -1].argmax()))
    assert completion.token_ids == expected


def test_a_finished_completion_holds_its_eos_and_a_cut_off_one_does_not(model):
    slate = LocalEngine(model, Tokenizer).sample([request_of([5, 6], seeds=range(60))])[0]
    assert {completion.finish_reason for completion in slate} == {"stop", "length"}
    for completion in slate:
        if completion.finish_reason == "stop":
            assert completion.token_ids.index(EOS) == len(completion.token_ids) - 1
        else:
            assert EOS not in completion.token_ids
            assert len(completion.token_ids) == 12
        assert len(completion.logprobs) == len(completion.token_ids)


def test_the_stop_tokens_of_the_generation_config_end_a_completion_too(model):
    model.generation_config.eos_token_id = [8, 17]
    assert stop_token_ids(model, Tokenizer) == {EOS, 8, 17}
    slate = LocalEngine(model, Tokenizer).sample([request_of([5, 6], seeds=range(60))])[0]
    last = {completion.token_ids[-1] for completion in slate if completion.finish_reason == "stop"}
    assert last == {EOS, 8, 17}
    assert all(not {EOS, 8, 17} & set(completion.token_ids[:-1]) for completion in slate)


def test_each_request_keeps_its_own_length_limit(model):
    model.generation_config.eos_token_id = None
    limits = [1, 4, 9]
    tokenizer = type("Never", (), {"eos_token_id": VOCABULARY + 5})
    slates = LocalEngine(model, tokenizer).sample([request_of([5, 6], max_completion_tokens=n) for n in limits])
    assert [len(slate[0].token_ids) for slate in slates] == limits


def test_small_batches_give_what_one_large_batch_gives(model):
    requests = [request_of(prompt, seeds=(1, 2, 3)) for prompt in RAGGED]
    large = LocalEngine(model, Tokenizer, max_rows=64).sample(requests)
    small = LocalEngine(model, Tokenizer, max_rows=4).sample(requests)
    assert [[c.token_ids for c in slate] for slate in small] == [[c.token_ids for c in slate] for slate in large]


def ids_of(slates):
    return [[completion.token_ids for completion in slate] for slate in slates]


def test_a_place_that_becomes_free_is_taken_by_the_next_completion_at_once(model):
    """Broken by decoding one full batch after another: 24 completions in 4 rows then take 6 times the longest."""
    rows = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    slates = LocalEngine(model, Tokenizer, max_rows=4).sample([request_of(prompt, seeds=range(6)) for prompt in RAGGED])
    num_tokens = sum(len(completion.token_ids) for slate in slates for completion in slate)
    assert max(rows) == 4
    assert sum(rows) == num_tokens  # no row is computed for nobody
    assert rows.count(4) >= len(rows) - 12  # all are busy until nothing waits


def shapes_read(model):
    """The shape of every tensor of token ids that the trunk is given from now on."""
    read = []
    model.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: read.append((args[0] if args else kwargs["input_ids"]).shape), with_kwargs=True
    )
    return read


def test_a_prompt_is_read_once_for_all_its_completions(model):
    read = shapes_read(model)
    LocalEngine(model, Tokenizer).sample([request_of(RAGGED[1], seeds=range(20)), request_of(RAGGED[4])])
    prompts = [shape for shape in read if shape[1] > 1]
    assert prompts == [(2, len(RAGGED[1]) - 1)]  # together, the shorter one padded; the last token is the first step's


def test_a_prompt_that_a_row_holds_is_not_read_again(model):
    read = shapes_read(model)
    engine, requests = LocalEngine(model, Tokenizer, max_rows=6), [request_of(RAGGED[1], seeds=range(20))]
    sampled = engine.sample(requests)
    assert sum(shape[1] > 1 for shape in read) == 1
    assert ids_of(sampled) == ids_of(LocalEngine(model, Tokenizer).sample(requests))


# What a GPU does, at a size that tests reach: few shapes, several steps before anybody looks.
FEW_SHAPES = Stepping(lanes=(1, 2, 4), columns=8, steps_between_looks=3)


@pytest.mark.parametrize("max_rows", [3, 7, 64])
def test_steps_of_few_shapes_give_what_exact_ones_give(model, max_rows):
    requests = [
        request_of(prompt, seeds=(1, 2, 3), temperature=0.0 if i == 2 else 1.0, top_p=0.9 if i == 3 else 1.0)
        for i, prompt in enumerate(RAGGED)
    ]
    exact = LocalEngine(model, Tokenizer).sample(requests)
    shapes = set()
    model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.add((len(kwargs["input_ids"]), kwargs["attention_mask"].shape[-1])),
        with_kwargs=True,
    )
    few = LocalEngine(model, Tokenizer, max_rows=max_rows, stepping=FEW_SHAPES).sample(requests)
    assert ids_of(few) == ids_of(exact)
    for own, expected in zip(itertools.chain(*few), itertools.chain(*exact), strict=True):
        assert own.finish_reason == expected.finish_reason
        assert own.logprobs == pytest.approx(expected.logprobs, abs=1e-5)
    assert {lanes for lanes, _ in shapes} <= {1, 2, 4, 8, 12, 16}
    assert {columns % 8 for _, columns in shapes} == {0}


def test_what_a_row_held_before_does_not_reach_the_next_completion(model):
    """One row: every completion is decoded where the others were, over longer ones too."""
    requests = [request_of(prompt, seeds=(3, 4)) for prompt in reversed(RAGGED)]
    one_row = LocalEngine(model, Tokenizer, max_rows=1).sample(requests)
    assert ids_of(one_row) == ids_of(LocalEngine(model, Tokenizer).sample(requests))


def test_a_model_in_fp32_can_be_decoded_in_bf16_with_the_weights_that_it_has_now(model):
    engine = LocalEngine(model, Tokenizer, dtype=torch.bfloat16)
    for _ in range(2):
        [[completion]] = engine.sample([request_of(RAGGED[1], (5,))])
        exact = logprobs_one_token_at_a_time(model, RAGGED[1], completion.token_ids)
        assert completion.logprobs == pytest.approx(exact, abs=0.3)
        assert completion.logprobs != pytest.approx(exact, abs=1e-5)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    assert model.dtype == torch.float32
    assert all(own is not copied for own, copied in zip(model.parameters(), engine.rounded.parameters(), strict=True))


def test_sampling_within_autocast_is_sampling_without_it(model):
    requests = [request_of(prompt, seeds=(3, 4)) for prompt in RAGGED]
    plain = LocalEngine(model, Tokenizer).sample(requests)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert LocalEngine(model, Tokenizer).sample(requests) == plain


def test_the_model_is_read_anew_at_each_call(model):
    engine = LocalEngine(model, Tokenizer)
    before = engine.sample([request_of([5, 6], temperature=0.0)])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    assert engine.sample([request_of([5, 6], temperature=0.0)]) != before


def test_a_prompt_that_leaves_no_room_for_the_completion_is_refused(model):
    engine = LocalEngine(model, Tokenizer)
    assert engine.sample([request_of([5] * 52)])
    with pytest.raises(PromptTooLong) as refused:
        engine.sample([request_of([5] * 53)])
    assert (refused.value.num_tokens, refused.value.limit) == (53, 52)


def test_a_broken_policy_is_named_and_not_sampled(model):
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    with pytest.raises(NonFiniteLogits):
        LocalEngine(model, Tokenizer).sample([request_of([5, 6])])


def chosen_shares(logits, temperature, top_p, draws=20_000):
    rows = torch.tensor(logits)[None].expand(draws, -1)
    uniform = (torch.arange(draws, dtype=torch.float64) + 0.5) / draws
    chosen, _ = choose_tokens(rows, uniform, torch.full((draws,), temperature), torch.full((draws,), top_p))
    return (torch.bincount(chosen, minlength=len(logits)) / draws).tolist()


def test_tokens_are_drawn_in_proportion_to_their_probability_at_the_temperature():
    weights = [math.exp(value / 0.5) for value in (0.0, 1.0, -1.0, 0.5)]
    expected = [weight / sum(weights) for weight in weights]
    assert chosen_shares([0.0, 1.0, -1.0, 0.5], 0.5, 1.0) == pytest.approx(expected, abs=1e-3)


def test_top_p_keeps_the_fewest_likeliest_tokens_that_reach_it():
    logits = [math.log(p) for p in (0.1, 0.5, 0.15, 0.25)]
    assert chosen_shares(logits, 1.0, 0.7) == pytest.approx([0, 0.5 / 0.75, 0, 0.25 / 0.75], abs=1e-3)
    assert chosen_shares(logits, 1.0, 0.76) == pytest.approx([0, 0.5 / 0.9, 0.15 / 0.9, 0.25 / 0.9], abs=1e-3)
    assert chosen_shares(logits, 1.0, 0.01) == [0, 1, 0, 0]


def test_an_impossible_token_is_never_drawn_even_at_the_ends():
    logits = torch.tensor([[-math.inf, 0.0, -math.inf]]).expand(2, -1)
    ends = torch.tensor([0.0, math.nextafter(1.0, 0.0)], dtype=torch.float64)
    chosen, logprobs = choose_tokens(logits, ends, torch.ones(2), torch.ones(2))
    assert chosen.tolist() == [1, 1]
    assert logprobs.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    "wrong", [{"temperature": -0.1}, {"top_p": 0.0}, {"top_p": 1.1}, {"max_completion_tokens": 0}, {"prompt_ids": []}]
)
def test_a_request_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match=r"must|needs"):
        SampleRequest(**{"prompt_ids": [1], "seeds": [1], "max_completion_tokens": 4} | wrong)
