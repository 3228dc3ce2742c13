"""Which labels made a policy: what a snapshot holds, by labeler, week, split and authors, is counted once."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "snapshot_breakdown",
        sa.Column("snapshot_id", sa.BigInteger(), nullable=False),
        sa.Column("content", sa.String(), nullable=False),
        sa.Column("dimension", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("num_labels", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["snapshot_id"], ["snapshot.id"], name=op.f("fk_snapshot_breakdown_snapshot_id")),
        sa.PrimaryKeyConstraint("snapshot_id", "content", "dimension", "key", name=op.f("pk_snapshot_breakdown")),
    )


def downgrade() -> None:
    op.drop_table("snapshot_breakdown")
