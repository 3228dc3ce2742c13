"""GRPO and rejection sampling beside PPO."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

BEFORE = ("sft", "reward", "ppo", "evaluate")


def upgrade() -> None:
    _recipes_are((*BEFORE, "grpo", "rejection"))


def downgrade() -> None:
    """Refused by the database where a stage of the new recipes was run: nothing it made is thrown away."""
    _recipes_are(BEFORE)


def _recipes_are(recipes: tuple[str, ...]) -> None:
    op.drop_constraint(op.f("ck_stage_recipe"), "stage", type_="check")
    names = ", ".join(f"'{recipe}'" for recipe in recipes)
    op.create_check_constraint(op.f("ck_stage_recipe"), "stage", f"recipe IN ({names})")
