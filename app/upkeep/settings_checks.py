"""Settings that contradict each other, or that nothing reads. Asks nobody but the environment."""

import difflib
import os
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from app.settings import Settings
from app.upkeep.findings import Finding, fault, good, note, warning

PREFIX = "PODIUM_"
# Read where they are used: a vLLM server for rollouts, the client's key, and what processes tell their children.
READ_ELSEWHERE = {
    *("PODIUM_ROLLOUTS_URL", "PODIUM_ROLLOUTS_KEY", "PODIUM_KEY"),
    *("PODIUM_PARENT_PIPE", "PODIUM_WORKER_PIPE"),
}
THIS_MACHINE = ("127.0.0.1", "localhost", "::1")
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
CLOSE = 0.8  # of two names, the share of letters in common, from which on one is taken for a slip of the other


def check_settings(settings: Settings, environment: Mapping[str, str]) -> Iterator[Finding]:
    """All of them."""
    found = [*_unknown(environment), *_addresses(settings), *_engine(settings), *_processes(settings)]
    yield from found or [good("settings", "no setting contradicts another one")]


def variables() -> set[str]:
    """Every variable that something reads."""
    fields = Settings.model_fields.items()
    named = {str(field.validation_alias or f"{PREFIX}{name.upper()}") for name, field in fields}
    return named | READ_ELSEWHERE


def _unknown(environment: Mapping[str, str]) -> Iterator[Finding]:
    known = variables()
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=CLOSE)
            advice = f"did you mean {close[0]}? " if close else ""
            yield warning("unknown_setting", f"{name} is set and nothing reads it", f"{advice}correct or remove it")
    if "FORWARDED_ALLOW_IPS" in environment:  # Uvicorn's own variable, which we read before there was ours
        yield warning(
            "unknown_setting", "FORWARDED_ALLOW_IPS is set and nothing reads it", "set PODIUM_PROXIES instead"
        )


def _addresses(settings: Settings) -> Iterator[Finding]:
    url = settings.public_url
    if url is None:
        if settings.host in EVERYWHERE:
            advice = "set PODIUM_PUBLIC_URL to the address that people type"
            yield warning("public_url", "the web process answers everyone, and links lead to 127.0.0.1", advice)
        if "proxies" in settings.model_fields_set:
            what = "PODIUM_PROXIES is set, and no proxy is believed: there is no PODIUM_PUBLIC_URL"
            yield warning("proxies", what, "set PODIUM_PUBLIC_URL to the address that people type")
        if settings.oidc_issuer:
            advice = "set PODIUM_PUBLIC_URL, and name its /sign-in/sso/return to the provider"
            yield fault("public_url", "single sign-on has no address to come back to", advice)
        return
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        yield fault("public_url", f"PODIUM_PUBLIC_URL is no address ({url})", "write it as https://podium.example.org")
    elif parts.scheme == "http" and parts.hostname not in THIS_MACHINE:
        advice = "let a proxy speak https, and set PODIUM_PUBLIC_URL to the https address"
        yield warning("public_url", "passwords and sessions cross the network unencrypted (http)", advice)


def _engine(settings: Settings) -> Iterator[Finding]:
    if settings.engine == "openai" and not settings.engine_url:
        yield fault("engine", "PODIUM_ENGINE=openai has no server", "set PODIUM_ENGINE_URL, or PODIUM_ENGINE=local")
    if settings.engine == "local" and (settings.engine_url or settings.engine_key):
        advice = "set PODIUM_ENGINE=openai to use it, or remove PODIUM_ENGINE_URL and PODIUM_ENGINE_KEY"
        yield warning("engine", "a completions server is named and not used: PODIUM_ENGINE is local", advice)
    if settings.pretraining_text is not None and not settings.pretraining_text.is_file():
        advice = "correct the path, or remove the setting"
        yield warning("pretraining_text", f"{settings.pretraining_text} is not on this machine", advice)


def _processes(settings: Settings) -> Iterator[Finding]:
    cores = os.cpu_count() or 1
    if settings.web_workers > cores:
        what = f"PODIUM_WEB_WORKERS={settings.web_workers} on {cores} cores: they take turns and hold connections"
        yield note("web_workers", what, f"set it to {cores} at most")
    if settings.threads > cores:
        what = f"PODIUM_THREADS={settings.threads} on {cores} cores: models compute slower than with {cores}"
        yield warning("threads", what, "set PODIUM_THREADS=0")
    if settings.database_url is None and settings.store_url is not None:
        what = "artifacts are shared through a store, and the database is this machine's own"
        yield note("embedded_database", what, "other machines need a Postgres of their own: set DATABASE_URL")
