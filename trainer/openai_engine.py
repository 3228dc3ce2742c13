"""Completions from a server that speaks the OpenAI completions protocol, wherever it runs: vLLM, `transformers serve`.

A request names the policy by what it opens with, a folder or a hub name: `transformers serve` opens it, vLLM must have
been started with it. One request for each completion, with the completion's own seed: so K are K different ones on
servers that know no `n`. httpx is imported where a server is spoken to: a machine that only trains has no need of it.
"""

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from enum import Enum
from threading import Lock
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from trainer.decoding import OnFinished, SampledCompletion, SampleRequest
from trainer.errors import StageError

log = logging.getLogger(__name__)

MAX_CONCURRENT = 32  # requests under way at once; a server that batches fills its batch from them
TIMEOUT_S = 600.0  # the first request may open a model
PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)  # before each new try of a request that the server could not answer
TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}
NOT_UNDERSTOOD = {400, 404, 422}  # what servers say of a field or a kind of prompt that they do not know


class ServerUnreachable(StageError):
    """The completions server does not answer, or cannot now."""

    code = "server_unreachable"

    def __init__(self, url: str, reason: object) -> None:
        super().__init__(
            f"the completions server at {url} does not answer ({reason})",
            advice="see that it runs and that PODIUM_ENGINE_URL names it; sampling goes on by itself once it answers",
        )


class ServerRefused(StageError):
    """The completions server answers that it will not."""

    code = "server_refused"

    def __init__(self, url: str, model: str, status: int, reason: str) -> None:
        super().__init__(
            f"the completions server at {url} refuses requests for {model} ({status}: {reason})",
            advice="correct PODIUM_ENGINE_KEY"
            if status in (401, 403)
            else "start the server with this policy, where it can read its folder (`vllm serve FOLDER`)",
        )
        self.status = status


class NoTokenIds(StageError):
    """The completions server gives texts alone."""

    code = "no_token_ids"

    def __init__(self, url: str) -> None:
        super().__init__(
            f"the completions server at {url} returns no token ids: it may fill slates, rollouts need one that does",
            advice="use a server that knows return_token_ids (vLLM does), or sample in this process",
        )


class Dialect(Enum):
    """What a server makes of a request beyond the protocol's core; the richest that it understands is spoken."""

    IDS = "prompt and completion as token ids, with logprobs"
    GENERATION_CONFIG = "prompt as text, and a generation config of Transformers, which samples only when that says so"
    TEXT = "prompt as text, and nothing beyond the protocol"


class CompletionsServer:
    """One server. Knows its address and key; the key is in no message and no log."""

    def __init__(self, url: str, key: str | None = None, *, pause: Callable[[float], None] = time.sleep) -> None:
        """url: with or without the /v1 at its end.  pause: waits so many seconds before a request is tried again."""
        import httpx

        self.url, user = without_user(url.rstrip("/").removesuffix("/v1"))
        self._pause = pause
        self._client = httpx.Client(
            base_url=self.url,  # httpx logs it
            auth=user,
            timeout=TIMEOUT_S,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            limits=httpx.Limits(max_connections=MAX_CONCURRENT),
        )
        self._dialects: dict[str, Dialect] = {}
        self._asking = Lock()

    def close(self) -> None:
        """Let its connections go."""
        self._client.close()

    def complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The one choice that the server answers. Raises ServerUnreachable after several tries, ServerRefused."""
        for pause_s in (*PAUSES_S, None):
            try:
                return self._ask(body)
            except ServerUnreachable as problem:
                if pause_s is None:
                    raise
                log.warning("%s; trying again in %s s", problem.message, pause_s)
                self._pause(pause_s)
        raise AssertionError("the last try returns or raises")

    def _ask(self, body: Mapping[str, Any]) -> dict[str, Any]:
        import httpx

        try:
            response = self._client.post("/v1/completions", json=dict(body))
        except httpx.TransportError as error:
            raise ServerUnreachable(self.url, str(error) or type(error).__name__) from error
        if response.status_code in TRY_AGAIN:
            raise ServerUnreachable(self.url, f"{response.status_code}: {first_line(response.text)}")
        if response.status_code != httpx.codes.OK:
            raise ServerRefused(self.url, str(body["model"]), response.status_code, first_line(response.text))
        try:
            choice: dict[str, Any] = response.json()["choices"][0]
        except (ValueError, LookupError, TypeError) as error:
            raise ServerUnreachable(self.url, f"its answer is no completion: {first_line(response.text)}") from error
        return choice

    def dialect(self, model: str, prompt_ids: Sequence[int], text: str) -> Dialect:
        """What the server understands, found out with one token of a prompt; asked once for each model.

        Raises ServerUnreachable, ServerRefused.
        """
        with self._asking:
            if model not in self._dialects:
                self._dialects[model] = self._find_dialect(model, prompt_ids, text)
                log.info("the completions server at %s takes %s", self.url, self._dialects[model].value)
            return self._dialects[model]

    def _find_dialect(self, model: str, prompt_ids: Sequence[int], text: str) -> Dialect:
        request = SampleRequest(prompt_ids=prompt_ids, seeds=[0], max_completion_tokens=1)
        for dialect in (Dialect.IDS, Dialect.GENERATION_CONFIG):
            try:
                choice = self.complete(body_of(dialect, model, request, 0, text, stop_ids=[]))
            except ServerRefused as refusal:
                if refusal.status not in NOT_UNDERSTOOD:
                    raise
                continue
            if dialect is not Dialect.IDS or choice.get("token_ids") is not None:
                return dialect
        self.complete(body_of(Dialect.TEXT, model, request, 0, text, stop_ids=[]))
        return Dialect.TEXT


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

    def __init__(self, server: CompletionsServer, model: str, tokenizer: Any, stop_ids: Iterable[int]) -> None:
        """model: what the policy opens with, there as here.  stop_ids: the tokens that end a completion."""
        self._server = server
        self._model = model
        self._tokenizer = tokenizer
        self._stop_ids = sorted(stop_ids)

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
        dialect = self._server.dialect(self._model, requests[0].prompt_ids, texts[0])
        found: dict[tuple[int, int], SampledCompletion] = {}
        with ThreadPoolExecutor(MAX_CONCURRENT, thread_name_prefix="completions") as pool:
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


def body_of(
    dialect: Dialect, model: str, request: SampleRequest, seed: int, text: str, *, stop_ids: Sequence[int]
) -> dict[str, Any]:
    """The request's JSON. The protocol's core, and what the dialect adds."""
    body: dict[str, Any] = {
        "model": model,
        "prompt": text,
        "max_tokens": request.max_completion_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": seed,
    }
    if dialect is Dialect.IDS:
        return {**body, "prompt": list(request.prompt_ids), "logprobs": 0, "return_token_ids": True}
    if dialect is Dialect.GENERATION_CONFIG:
        # It replaces the folder's own: without do_sample the server is greedy, and a top-k there would be cut by.
        chosen: dict[str, Any] = {"do_sample": request.temperature > 0, "top_k": 0}
        if stop_ids:
            chosen |= {"eos_token_id": list(stop_ids), "pad_token_id": stop_ids[0]}
        return {**body, "generation_config": json.dumps(chosen)}
    return body


def prompt_text(tokenizer: Any, prompt_ids: Sequence[int]) -> str:
    """The prompt for a server that takes texts: what its tokenizer, adding what it adds, encodes to the same ids.

    Where no text does, the one that reads the same without a BOS of its own.
    """
    text: str = tokenizer.decode(list(prompt_ids), skip_special_tokens=False)
    bare = text.removeprefix(tokenizer.bos_token) if tokenizer.bos_token else text
    encodes_alike = list(tokenizer.encode(text)) == list(prompt_ids)
    return text if encodes_alike else bare


def without_user(url: str) -> tuple[str, tuple[str, str] | None]:
    """The address, and who is to sign in there, if it said so."""
    parts = urlsplit(url)
    address = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return address, (unquote(parts.username), unquote(parts.password or "")) if parts.username else None


def first_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0][:300]
