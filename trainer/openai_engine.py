"""Completions from a server that speaks the OpenAI completions protocol, wherever it runs: vLLM, `transformers serve`.

A request names the policy by what it opens with, a folder or a hub name: `transformers serve` opens it, vLLM must have
been started with it. One request for each completion, with the completion's own seed: so K are K different ones on
servers that know no `n`.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from trainer.completions_server import CompletionsServer, Dialect, body_of
from trainer.decoding import OnFinished, SampledCompletion, SampleRequest
from trainer.errors import StageError


class NoTokenIds(StageError):
    """The completions server gives texts alone."""

    code = "no_token_ids"

    def __init__(self, url: str) -> None:
        super().__init__(
            f"the completions server at {url} returns no token ids: it may fill slates, rollouts need one that does",
            advice="use a server that knows return_token_ids (vLLM does), or sample in this process",
        )


def returns_token_ids(server: CompletionsServer, model: str, tokenizer: Any) -> bool:
    """Whether the server takes and gives token ids: what was sampled, and not what its text encodes to."""
    prompt_ids = [int(tokenizer.eos_token_id)]
    return server.dialect(model, prompt_ids, tokenizer.decode(prompt_ids)) is Dialect.IDS


def require_token_ids(server: CompletionsServer, model: str, tokenizer: Any) -> None:
    """Raises NoTokenIds for a server whose completions cannot be trained on."""
    if not returns_token_ids(server, model, tokenizer):
        raise NoTokenIds(server.url)


class OpenAIEngine:
    """Samples from a policy that a server holds (protocol `Engine` of trainer.decoding)."""

    def __init__(
        self,
        server: CompletionsServer,
        model: str,
        tokenizer: Any,
        stop_ids: Iterable[int],
        dialect: Dialect | None = None,
    ) -> None:
        """model: what the policy opens with, there as here.  stop_ids: the tokens that end a completion.

        dialect: what the server is known to understand; it is asked where nobody knows.
        """
        self._server = server
        self._model = model
        self._tokenizer = tokenizer
        self._stop_ids = sorted(stop_ids)
        self._dialect = dialect

    def sample(
        self, requests: Sequence[SampleRequest], on_finished: OnFinished | None = None
    ) -> list[list[SampledCompletion]]:
        """The completions of each request, in the order of its seeds.

        From a server that gives no token ids they have a text and neither ids nor logprobs.
        Raises ServerUnreachable, ServerRefused; what was under way is then waited for and dropped.
        """
        if not requests:
            return []
        texts = [prompt_text(self._tokenizer, request.prompt_ids) for request in requests]
        dialect = self._dialect or self._server.dialect(self._model, requests[0].prompt_ids, texts[0])
        found: dict[tuple[int, int], SampledCompletion] = {}
        with ThreadPoolExecutor(self._server.use.max_concurrent, thread_name_prefix="completions") as pool:
            pending = {
                pool.submit(self._complete, dialect, request, seed, texts[r]): (r, s)
                for r, request in enumerate(requests)
                for s, seed in enumerate(request.seeds)
            }
            try:
                for future in as_completed(pending):
                    r, s = pending[future]
                    found[r, s] = future.result()
                    if on_finished is not None:
                        on_finished(r, found[r, s])
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [[found[r, s] for s in range(len(request.seeds))] for r, request in enumerate(requests)]

    def _complete(self, dialect: Dialect, request: SampleRequest, seed: int, text: str) -> SampledCompletion:
        choice = self._server.complete(body_of(dialect, self._model, request, seed, text, stop_ids=self._stop_ids))
        is_finished = choice.get("finish_reason") == "stop"
        if dialect is not Dialect.IDS:
            return SampledCompletion(
                token_ids=[],
                logprobs=[],
                finish_reason="stop" if is_finished else "length",
                seed=seed,
                text=str(choice.get("text", "")),
            )
        token_ids = [int(token) for token in choice["token_ids"]]
        logprobs = [float(value) for value in (choice.get("logprobs") or {}).get("token_logprobs") or []]
        if is_finished and (not token_ids or token_ids[-1] not in self._stop_ids):
            token_ids.append(int(self._tokenizer.eos_token_id))  # it stopped there and kept the token to itself
        if request.temperature not in (0.0, 1.0) or len(logprobs) != len(token_ids):
            logprobs = []  # servers give those of temperature 1, and ours are of the temperature that was sampled at
        return SampledCompletion(
            token_ids=token_ids,
            logprobs=logprobs,
            finish_reason="stop" if is_finished else "length",
            seed=seed,
        )


def prompt_text(tokenizer: Any, prompt_ids: Sequence[int]) -> str:
    """The prompt for a server that takes texts: what its tokenizer, adding what it adds, encodes to the same ids.

    Where no text does, the one that reads the same without a BOS of its own.
    """
    text: str = tokenizer.decode(list(prompt_ids), skip_special_tokens=False)
    bare = text.removeprefix(tokenizer.bos_token) if tokenizer.bos_token else text
    encodes_alike = list(tokenizer.encode(text)) == list(prompt_ids)
    return text if encodes_alike else bare
