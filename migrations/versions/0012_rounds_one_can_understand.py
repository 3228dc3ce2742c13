"""Rounds one can understand: phases of a stage, what it was before it began anew, the project's rule, devices."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

PHASES = ("waiting", "preparing", "waiting_for_device", "computing", "storing", "ended")


def upgrade() -> None:
    op.add_column("stage_event", sa.Column("phase", sa.String(24), nullable=True))
    op.create_check_constraint(op.f("ck_stage_event_phase"), "stage_event", f"phase IN {PHASES}")
    op.add_column("round", sa.Column("by_rule", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("heartbeat", sa.Column("device", sa.String(), nullable=True))
    op.add_column("heartbeat", sa.Column("memory_gb", sa.Double(), nullable=True))
    op.create_table(
        "stage_try",
        sa.Column("stage_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("configuration", postgresql.JSONB(), nullable=False),
        sa.Column("folder", sa.String(), nullable=False),
        sa.Column("error", postgresql.JSONB(), nullable=True),
        sa.Column("figures", postgresql.JSONB(), nullable=False),
        sa.Column("last_step", sa.BigInteger(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["stage_id"], ["stage.id"], name=op.f("fk_stage_try_stage_id")),
        sa.PrimaryKeyConstraint("stage_id", "number", name=op.f("pk_stage_try")),
    )
    op.create_table(
        "round_rule",
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("num_rankings", sa.BigInteger(), nullable=False),
        sa.Column("least_hours", sa.Float(), server_default=sa.text("0"), nullable=False),
        sa.Column("stages", postgresql.JSONB(), nullable=False),
        sa.Column("overrides", postgresql.JSONB(), nullable=False),
        sa.Column("evaluation_comparisons", sa.BigInteger(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_by", sa.BigInteger(), nullable=True),
        sa.Column("paused_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("paused_because", sa.String(), nullable=True),
        sa.Column("seen_failure_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("problem", postgresql.JSONB(), nullable=True),
        sa.Column("problem_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tried_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("num_rankings >= 1 AND least_hours >= 0", name=op.f("ck_round_rule_limits")),
        sa.CheckConstraint("paused_because IS NULL OR paused_at IS NOT NULL", name=op.f("ck_round_rule_paused_why")),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_round_rule_project_id")),
        sa.ForeignKeyConstraint(["updated_by"], ["account.id"], name=op.f("fk_round_rule_updated_by")),
        sa.PrimaryKeyConstraint("project_id", name=op.f("pk_round_rule")),
    )


def downgrade() -> None:
    op.drop_table("round_rule")
    op.drop_table("stage_try")
    op.drop_column("heartbeat", "memory_gb")
    op.drop_column("heartbeat", "device")
    op.drop_column("round", "by_rule")
    op.drop_constraint(op.f("ck_stage_event_phase"), "stage_event")
    op.drop_column("stage_event", "phase")
