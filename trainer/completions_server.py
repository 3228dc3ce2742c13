"""A server of the OpenAI completions protocol: what it is asked, how long it is waited for, what its refusals mean.

Knows nothing of policies but their names. httpx is imported where a server is spoken to: a machine that only trains has
no need of it.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from threading import Lock
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

from trainer.decoding import SampleRequest
from trainer.errors import StageError

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

TIMEOUT_S = 600.0  # the first request may open a model
IDLE_S = 2.0  # an idle connection is let go before the server does so (uvicorn: 5 s), just as a request goes out on it
TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}
NOT_UNDERSTOOD = {400, 404, 422}  # what servers say of a field or a kind of prompt that they do not know
BROKEN_OFF = {"abort", "error"}  # finish reasons of completions that the server did not finish (vLLM)


@dataclass(frozen=True, kw_only=True)
class Use:
    """What a server is used for: how it is configured, how much is asked of it, how long it may be away."""

    variables: str  # what the names of its environment variables begin with
    goes_on: str  # how what waits for it goes on, said when it is away
    max_concurrent: int  # requests under way at once; a server that batches fills its batch from them
    pauses_s: tuple[float, ...]  # before each new try of a request that the server could not answer


SLATES = Use(
    variables="PODIUM_ENGINE",
    goes_on="sampling goes on by itself once it answers",
    max_concurrent=32,
    pauses_s=(0.5, 1.0, 2.0, 4.0, 8.0),
)
ROLLOUTS = Use(
    variables="PODIUM_ROLLOUTS",
    goes_on="resume the round once it answers",
    max_concurrent=256,  # what vLLM decodes together by default
    pauses_s=(0.5, 1.0, 2.0, 4.0, 8.0, 15.0, *[30.0] * 19),  # ten minutes: a large model is that long in starting
)


class ServerUnreachable(StageError):
    """The completions server does not answer, or cannot now."""

    code = "server_unreachable"

    def __init__(self, url: str, reason: object, use: Use) -> None:
        super().__init__(
            f"the completions server at {url} does not answer ({reason})",
            advice=f"see that it runs and that {use.variables}_URL names it; {use.goes_on}",
        )


class ServerRefused(StageError):
    """The completions server answers that it will not."""

    code = "server_refused"

    def __init__(self, url: str, asked: str, status: int, reason: str, use: Use) -> None:
        """asked: what of, as "requests for FOLDER"."""
        super().__init__(
            f"the completions server at {url} refuses {asked} ({status}: {reason})",
            advice=f"correct {use.variables}_KEY"
            if status in (401, 403)
            else "start the server with this policy, where it can read its folder (`vllm serve FOLDER`)",
        )
        self.status, self.reason = status, reason


class BadServerSetting(StageError):
    """The address or the key of the completions server cannot be used. Neither stands in the message."""

    code = "bad_server_setting"

    def __init__(self, variable: str, problem: str) -> None:
        super().__init__(f"{variable} {problem}", advice=f"correct {variable} and start again")


class Dialect(Enum):
    """What a server makes of a request beyond the protocol's core; the richest that it understands is spoken."""

    IDS = "prompt and completion as token ids, with logprobs"
    GENERATION_CONFIG = "prompt as text, and a generation config of Transformers, which samples only when that says so"
    TEXT = "prompt as text, and nothing beyond the protocol"


class CompletionsServer:
    """One server. Knows its address and key; the key is in no message and no log."""

    def __init__(
        self, url: str, key: str | None = None, use: Use = SLATES, *, pause: Callable[[float], None] = time.sleep
    ) -> None:
        """url: with or without the /v1 at its end.  pause: waits so many seconds before a request is tried again.

        Raises BadServerSetting.
        """
        import httpx

        self._key = usable_key(key or "", use)
        self.url, user = without_user(usable_address(url, use))
        self.use = use
        self.num_losses = 0  # of connections: behind each the server may have started again
        self._pause = pause
        self._client = httpx.Client(
            base_url=self.url,  # httpx logs it
            auth=user,
            timeout=TIMEOUT_S,
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            limits=httpx.Limits(max_connections=use.max_concurrent, keepalive_expiry=IDLE_S),
        )
        self._dialects: dict[str, Dialect] = {}
        self._asking = Lock()

    def close(self) -> None:
        """Let its connections go."""
        self._client.close()

    def complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The one choice that the server answers. Raises ServerUnreachable after several tries, ServerRefused."""
        return self._patiently(lambda: self._complete(body), self.use.pauses_s)

    def tell(self, path: str, body: Mapping[str, Any], what: str, *, is_patient: bool = True) -> None:
        """Have the server do something beyond completions.  what: it is, for the refusal.

        Raises ServerUnreachable, after several tries where it is patient, and ServerRefused: also for an error of the
        server's own (500), which the same would meet again.
        """

        def ask() -> None:
            status, text = self._post(path, body)
            if status in TRY_AGAIN - {500}:
                raise self._unreachable(f"{status}: {self._quoted(text)}")
            if status >= 300:
                raise ServerRefused(self.url, what, status, self._quoted(text), self.use)

        self._patiently(ask, self.use.pauses_s if is_patient else ())

    def _patiently(self, ask: Callable[[], Answer], pauses_s: Sequence[float]) -> Answer:
        for pause_s in (*pauses_s, None):
            try:
                return ask()
            except ServerUnreachable as problem:
                if pause_s is None:
                    raise
                log.warning("%s; trying again in %s s", problem.message, pause_s)
                self._pause(pause_s)
        raise AssertionError("the last try returns or raises")

    def _post(self, path: str, body: Mapping[str, Any]) -> tuple[int, str]:
        """Status and text of the answer. Raises ServerUnreachable where there is none."""
        import httpx

        try:
            response = self._client.post(path, json=dict(body))
        except httpx.LocalProtocolError as error:  # its text may quote the headers, and the key with them
            self.num_losses += 1
            raise self._unreachable(type(error).__name__) from None
        except httpx.TransportError as error:
            self.num_losses += 1
            raise self._unreachable(str(error) or type(error).__name__) from error
        return response.status_code, response.text

    def _complete(self, body: Mapping[str, Any]) -> dict[str, Any]:
        status, text = self._post("/v1/completions", body)
        if status in TRY_AGAIN:
            raise self._unreachable(f"{status}: {self._quoted(text)}")
        if status >= 300:
            raise ServerRefused(self.url, f"requests for {body['model']}", status, self._quoted(text), self.use)
        try:
            choice: dict[str, Any] = json.loads(text)["choices"][0]
        except (ValueError, LookupError, TypeError) as error:
            raise self._unreachable(f"its answer is no completion: {self._quoted(text)}") from error
        if choice.get("finish_reason") in BROKEN_OFF:
            raise self._unreachable("it broke a completion off")
        return choice

    def _quoted(self, text: str) -> str:
        """What of an answer stands in messages. Servers that refuse a key quote it."""
        line = first_line(text)
        return line.replace(self._key, "…") if self._key else line

    def _unreachable(self, reason: str) -> ServerUnreachable:
        return ServerUnreachable(self.url, reason, self.use)

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
        # vLLM takes what a request leaves out from the policy's generation config: a top-k there would cut by it.
        plain = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "stop_token_ids": list(stop_ids)}
        return {**body, **plain, "prompt": list(request.prompt_ids), "logprobs": 0, "return_token_ids": True}
    if dialect is Dialect.GENERATION_CONFIG:
        # It replaces the folder's own: without do_sample the server is greedy, and a top-k there would be cut by.
        chosen: dict[str, Any] = {"do_sample": request.temperature > 0, "top_k": 0}
        if stop_ids:
            chosen |= {"eos_token_id": list(stop_ids), "pad_token_id": stop_ids[0]}
        return {**body, "generation_config": json.dumps(chosen)}
    return body


def usable_address(url: str, use: Use) -> str:
    """The address without the /v1 at its end. Raises BadServerSetting for one that no request can go to."""
    import httpx

    address = url.strip().rstrip("/").removesuffix("/v1")
    try:
        parts = urlsplit(address)
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        httpx.URL(address)
    except (ValueError, httpx.InvalidURL):  # a port that is no number, brackets without an address, …
        is_whole = False
    if not is_whole:
        raise BadServerSetting(f"{use.variables}_URL", "is no address of the form http://host:port")
    return address


def usable_key(key: str, use: Use) -> str:
    """The key as it is sent: without the line break that a file ends in. Raises BadServerSetting."""
    key = key.strip()
    if not (key.isascii() and key.isprintable()):
        raise BadServerSetting(f"{use.variables}_KEY", "holds characters other than printable ASCII")
    return key


def without_user(url: str) -> tuple[str, tuple[str, str] | None]:
    """The address, and who is to sign in there, if it said so."""
    parts = urlsplit(url)
    address = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return address, (unquote(parts.username), unquote(parts.password or "")) if parts.username else None


def first_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0][:300]
