"""The queue that labelers rank from, in the order in which it is given out."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_slate_to_rank",
        "slate",
        ["project_id", "free_from"],
        postgresql_where=sa.text("state = 'ready' AND kind IN ('training', 'pair')"),
    )


def downgrade() -> None:
    op.drop_index("ix_slate_to_rank", table_name="slate")
