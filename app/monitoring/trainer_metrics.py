"""What a trainer counts. Its own registry: told where PODIUM_TRAINER_LISTEN says."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from app.rounds.models import Recipe

REGISTRY = CollectorRegistry()
OUTCOMES = ("succeeded", "failed", "cancelled", "put_back", "lost")

STAGES = Counter(
    "podium_trainer_stages",
    "Claims of stages that ended, by outcome: succeeded, failed, cancelled, put_back (the trainer was stopped), lost.",
    ["recipe", "outcome"],
    registry=REGISTRY,
)
for _recipe in (*Recipe, "unknown"):  # "unknown" until its inputs are read
    for _outcome in OUTCOMES:
        STAGES.labels(str(_recipe), _outcome)  # told from the start: a counter that begins at 1 has not increased
STAGE_SECONDS = Counter(
    "podium_trainer_stage_seconds", "Seconds spent on stages, whatever came of them.", ["recipe"], registry=REGISTRY
)
IS_BUSY = Gauge("podium_trainer_busy", "1 while a stage is claimed, else 0.", registry=REGISTRY)
STEPS = Counter(
    "podium_trainer_steps", "Rows of metrics relayed: one a step that reports.", ["recipe"], registry=REGISTRY
)
SAMPLES = Counter("podium_trainer_samples", "Sample completions relayed.", ["recipe"], registry=REGISTRY)
KILLS = Counter(
    "podium_trainer_recipe_kills",
    "Recipes that a signal ended and that went on from their checkpoint.",
    ["recipe"],
    registry=REGISTRY,
)
