"""What an installation may decide, read from the environment once. docs/operations.md tells it to operators."""

from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Literal

from platformdirs import user_data_path
from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

LEAST_TOKEN = 16  # letters of the token that opens /metrics
LOOPBACK = ("http://127.0.0.1:", "http://localhost:")  # where nobody is in between


class Settings(BaseSettings):
    """Every variable is PODIUM_<NAME>, except DATABASE_URL, which all tools share."""

    model_config = SettingsConfigDict(env_prefix="PODIUM_", extra="ignore", hide_input_in_errors=True)

    database_url: str | None = Field(
        default=None, validation_alias="DATABASE_URL", description="Postgres to use; the embedded one when unset."
    )
    home: Path = Field(
        default_factory=lambda: user_data_path("podium"),
        description="Where the embedded database, the artifacts and the logs live.",
    )
    artifacts_place: str | None = Field(
        default=None,
        validation_alias="PODIUM_ARTIFACTS",
        description="Where round folders are kept for all machines: a folder, or the URL of a store (s3://, gs://,"
        " file://); $PODIUM_HOME/artifacts when unset.",
    )
    host: str = Field(default="127.0.0.1", description="Address the web process listens on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port the web process listens on; 0 picks a free one.")
    public_url: str | None = Field(
        default=None, description="Address people use, when a proxy stands in front; links and cookies follow it."
    )
    proxies: str = Field(
        default="127.0.0.1, ::1",
        description="Proxies that may say where a request comes from (X-Forwarded-For), where PODIUM_PUBLIC_URL is set:"
        " addresses or networks, with commas between.",
    )
    web_workers: int = Field(default=1, ge=1, description="Web processes that `podium serve` starts.")
    pool_size: int = Field(default=10, ge=2, description="Database connections a process may hold.")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="Where the sampler and recipes compute.")
    threads: int = Field(default=0, ge=0, description="CPU threads for models; 0 uses every core.")
    pretraining_text: Path | None = Field(
        default=None, description="Text or JSONL that PPO mixes in (ppo.ptx_coef); demonstrations when unset."
    )
    engine: Literal["local", "openai"] = Field(
        default="local", description="What samples for labelers: this process, or a server of the OpenAI protocol."
    )
    engine_url: str | None = Field(default=None, description="The completions server, for the engine `openai`.")
    engine_key: SecretStr | None = Field(default=None, description="What the completions server asks for, if it does.")
    oidc_issuer: str | None = Field(default=None, description="Single sign-on: the OpenID Connect provider's address.")
    oidc_client_id: str | None = Field(default=None, description="What the provider calls this installation.")
    oidc_client_secret: SecretStr | None = Field(default=None, description="What the provider knows it by.")
    oidc_name: str = Field(default="your organisation", description="The provider's name, on the sign-in button.")
    oidc_domains: str = Field(
        default="", description="Domains whose people get an account without an invitation, with commas between."
    )
    webhook_networks: str = Field(
        default="",
        description="Private networks that webhooks may reach beside public addresses: 10.20.0.0/16, 192.168.1.7/32.",
    )
    webhook_refused: str = Field(
        default="",
        description="Public addresses that webhooks must not reach all the same, such as the prefix of a NAT64 of your"
        " own: 2001:db8:64::/96.",
    )
    keep_versions: int | None = Field(
        default=None,
        ge=1,
        description="Of how many last versions of a project `podium artifacts prune` keeps the weights; of all when"
        " unset.",
    )
    keep_checkpoints_days: int = Field(
        default=14,
        ge=0,
        description="Days for which a stage that ended keeps its checkpoints; then prune removes them.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least level logged.")
    log_format: Literal["text", "json"] = Field(default="text", description="Log lines for people, or for programs.")
    access_log: Literal["none", "slow", "all"] = Field(
        default="slow", description="Requests that are logged: those over a second or failed by us, all, or none."
    )
    metrics_token: SecretStr | None = Field(
        default=None, description="What a scraper of /metrics sends; without one nobody may read them."
    )
    sampler_listen: str | None = Field(
        default=None,
        description="host:port where a sampler answers /metrics, /healthz and /readyz; nowhere when unset.",
    )
    trainer_listen: str | None = Field(default=None, description="The same of a trainer.")
    drain_s: float = Field(
        default=0.0,
        ge=0,
        le=300,
        description="Seconds that a web process goes on after SIGTERM while /readyz says no, for a proxy to notice.",
    )

    @field_validator("metrics_token", mode="before")
    @classmethod
    def _is_set(cls, token: object) -> object:
        return token or None  # compose passes on what is not set as an empty text

    @field_validator("metrics_token")
    @classmethod
    def _is_no_guess(cls, token: SecretStr | None) -> SecretStr | None:
        if token is not None and len(token.get_secret_value()) < LEAST_TOKEN:
            raise ValueError(f"needs {LEAST_TOKEN} letters or more: `openssl rand -hex 24` makes some")
        return token

    @field_validator("sampler_listen", "trainer_listen")
    @classmethod
    def _is_a_place(cls, place: str | None) -> str | None:
        if place:
            host_and_port(place)
        return place or None

    @field_validator("proxies", "webhook_networks", "webhook_refused")
    @classmethod
    def _are_networks(cls, text: str) -> str:
        networks_of(text)
        return text

    @model_validator(mode="after")
    def _sign_on_is_whole(self) -> "Settings":
        given = [value for value in (self.oidc_issuer, self.oidc_client_id, self.oidc_client_secret) if value]
        if given and len(given) < 3:
            raise ValueError(
                "single sign-on needs PODIUM_OIDC_ISSUER, PODIUM_OIDC_CLIENT_ID and PODIUM_OIDC_CLIENT_SECRET together"
            )
        if self.oidc_issuer and not self.oidc_issuer.startswith(("https://", *LOOPBACK)):
            raise ValueError("PODIUM_OIDC_ISSUER must begin with https://: what the provider says must not be changed")
        return self

    @property
    def artifacts(self) -> Path:
        """Round folders on this machine; with a store, what is worked on here and copies of what was fetched."""
        if not self.artifacts_place or self.store_url is not None:
            return self.home / "artifacts"
        return Path(self.artifacts_place).expanduser().absolute()

    @property
    def store_url(self) -> str | None:
        """The store that machines share (app.artifacts); None where they share a folder, or are one."""
        place = self.artifacts_place
        return place if place is not None and "://" in place else None

    @property
    def address(self) -> str:
        """What people type into a browser."""
        if self.public_url is not None:
            return self.public_url.rstrip("/")
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104 - compared, not bound
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{self.port}"


def host_and_port(place: str) -> tuple[str, int]:
    """An address to listen on: 127.0.0.1:9101, [::1]:9101. Raises ValueError."""
    host, _, port = place.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{place} is no host:port, such as 127.0.0.1:9101")
    return host.removeprefix("[").removesuffix("]"), int(port)


def networks_of(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """Networks as they stand in a setting, with commas between them. Raises ValueError."""
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process."""
    return Settings()
