"""Writes registries in the format that a scraper asks for, and knows who may read them."""

import hmac
from collections.abc import Iterator, Sequence
from itertools import chain

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from pydantic import SecretStr

from app.errors import PodiumError


class MetricsNotOpen(PodiumError):
    """Nobody may read the metrics: no token is set."""

    code = "metrics_not_open"

    def __init__(self) -> None:
        super().__init__("Metrics are told to nobody here: set PODIUM_METRICS_TOKEN, and start the process again.")


class WrongMetricsToken(PodiumError):
    """Whoever asks for the metrics does not have their token."""

    code = "wrong_metrics_token"

    def __init__(self) -> None:
        super().__init__("Metrics are told to who sends PODIUM_METRICS_TOKEN: as `Authorization: Bearer …`.")


def check_token(expected: SecretStr | None, given: str | None) -> None:
    """Raises MetricsNotOpen, WrongMetricsToken."""
    if expected is None:
        raise MetricsNotOpen
    if not hmac.compare_digest(expected.get_secret_value().encode(), (given or "").encode()):
        raise WrongMetricsToken


def exposition(accept: str | None, *registries: CollectorRegistry) -> tuple[bytes, str]:
    """(body, content type) in the text format, or OpenMetrics where the scraper prefers it."""
    encode, content_type = choose_encoder(accept or "")
    return encode(_Together(registries)), content_type


class _Together(Collector):
    def __init__(self, registries: Sequence[CollectorRegistry]) -> None:
        self.registries = registries

    def collect(self) -> Iterator[Metric]:
        return chain.from_iterable(registry.collect() for registry in self.registries)
