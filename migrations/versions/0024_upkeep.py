"""Upkeep: which programs a schema serves, versions whose weights were removed, and versions that are kept by hand."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

serves = "0024"  # the first programs that ask


def upgrade() -> None:
    op.create_table(
        "schema_serves",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("least", sa.String(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_schema_serves_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schema_serves")),
    )
    op.add_column("policy_version", sa.Column("kept_at", sa.DateTime(timezone=True), nullable=True))
    for table in ("policy_version", "reward_model_version"):
        op.add_column(table, sa.Column("weights_removed_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    for table in ("reward_model_version", "policy_version"):
        op.drop_column(table, "weights_removed_at")
    op.drop_column("policy_version", "kept_at")
    op.drop_table("schema_serves")
