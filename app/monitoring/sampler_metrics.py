"""What a sampler counts. Its own registry: told where PODIUM_SAMPLER_LISTEN says."""

from prometheus_client import CollectorRegistry, Counter, Histogram

REGISTRY = CollectorRegistry()

CLAIMS = Counter("podium_sampler_claims", "Slates claimed to be sampled.", registry=REGISTRY)
SLATES = Counter(
    "podium_sampler_slates",
    "What became of them: stored, passed_over (another is shown instead), given_up (its prompt is set aside),"
    " lost (somebody else's by then), given_back.",
    ["outcome"],
    registry=REGISTRY,
)
COMPLETIONS = Counter("podium_sampler_completions", "Completions sampled for slates and stored.", registry=REGISTRY)
TOKENS = Counter("podium_sampler_tokens", "Tokens of those completions.", registry=REGISTRY)
BATCH_SECONDS = Histogram(
    "podium_sampler_batch_seconds",
    "One batch of slates, from its claim to the last of them.",
    buckets=(0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
    registry=REGISTRY,
)
FAILURES = Counter(
    "podium_sampler_failures", "Times that a project was put off: its policy could not be used.", registry=REGISTRY
)
REQUESTS = Counter(
    "podium_sampler_requests",
    "Questions of the web answered, by kind and outcome: answered or refused.",
    ["kind", "outcome"],
    registry=REGISTRY,
)
