"""Evaluations of reward models: on which rankings, how far, and the report."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

STATES = ("queued", "running", "succeeded", "failed", "cancelled")


def upgrade() -> None:
    op.create_table(
        "reward_evaluation",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("reward_model_id", sa.BigInteger(), nullable=True),
        sa.Column("checkpoint", sa.String(), nullable=True),
        sa.Column("snapshot_id", sa.BigInteger(), nullable=False),
        sa.Column("splits", postgresql.ARRAY(sa.String()), nullable=False),
        sa.Column("by_stage", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("includes_learned", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("state", sa.String(24), server_default="queued", nullable=False),
        sa.Column("folder", sa.String(), nullable=True),
        sa.Column("manifest_sha256", sa.String(), nullable=True),
        sa.Column("num_slates", sa.BigInteger(), nullable=True),
        sa.Column("num_scored", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("report", postgresql.JSONB(), nullable=True),
        sa.Column("error", postgresql.JSONB(), nullable=True),
        sa.Column("attempt", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("owner", sa.String(), nullable=True),
        sa.Column("deadline", sa.DateTime(timezone=True), nullable=True),
        sa.Column("requested_by", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(f"state IN {STATES}", name=op.f("ck_reward_evaluation_state")),
        sa.CheckConstraint(
            "(reward_model_id IS NULL) <> (checkpoint IS NULL)", name=op.f("ck_reward_evaluation_one_model")
        ),
        sa.CheckConstraint(
            "state <> 'running' OR (owner IS NOT NULL AND deadline IS NOT NULL)",
            name=op.f("ck_reward_evaluation_running_is_claimed"),
        ),
        sa.CheckConstraint("state <> 'failed' OR error IS NOT NULL", name=op.f("ck_reward_evaluation_failed_says_why")),
        sa.CheckConstraint(
            "state <> 'succeeded' OR (report IS NOT NULL AND manifest_sha256 IS NOT NULL)",
            name=op.f("ck_reward_evaluation_succeeded_has_a_report"),
        ),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_reward_evaluation_project_id")),
        sa.ForeignKeyConstraint(
            ["reward_model_id"], ["reward_model_version.id"], name=op.f("fk_reward_evaluation_reward_model_id")
        ),
        sa.ForeignKeyConstraint(["snapshot_id"], ["snapshot.id"], name=op.f("fk_reward_evaluation_snapshot_id")),
        sa.ForeignKeyConstraint(["requested_by"], ["account.id"], name=op.f("fk_reward_evaluation_requested_by")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reward_evaluation")),
    )
    op.create_index("ix_reward_evaluation_project", "reward_evaluation", ["project_id", "id"])
    op.create_index(
        "ix_reward_evaluation_queue",
        "reward_evaluation",
        ["id"],
        postgresql_where=sa.text("state IN ('queued', 'running')"),
    )
    op.create_index(
        "uq_reward_evaluation_by_stage",
        "reward_evaluation",
        ["reward_model_id"],
        unique=True,
        postgresql_where=sa.text("by_stage"),
    )


def downgrade() -> None:
    op.drop_table("reward_evaluation")
