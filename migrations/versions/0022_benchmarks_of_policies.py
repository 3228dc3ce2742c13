"""What public tasks say of a policy version."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "policy_benchmark",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("policy_version_id", sa.BigInteger(), nullable=False),
        sa.Column("task", sa.String(), nullable=False),
        sa.Column("metric", sa.String(), nullable=False),
        sa.Column("filter", sa.String(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("stderr", sa.Double(), nullable=True),
        sa.Column("num_examples", sa.BigInteger(), nullable=False),
        sa.Column("num_fewshot", sa.BigInteger(), nullable=True),
        sa.Column("task_version", sa.String(), nullable=False),
        sa.Column("higher_is_better", sa.Boolean(), nullable=True),
        sa.Column("is_part", sa.Boolean(), nullable=False),
        sa.Column("harness", sa.String(), nullable=False),
        sa.Column("settings", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["policy_version_id"], ["policy_version.id"], name=op.f("fk_policy_benchmark_policy_version_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_policy_benchmark")),
    )
    op.create_index("ix_policy_benchmark_policy_version", "policy_benchmark", ["policy_version_id"])


def downgrade() -> None:
    op.drop_table("policy_benchmark")
