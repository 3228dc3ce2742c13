"""A labeler's writings of a day, counted for each next task."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_writing_labeler_closed",
        "writing",
        ["labeler_id", "closed_at"],
        postgresql_where=sa.text("closed_at IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_writing_labeler_closed", table_name="writing")
