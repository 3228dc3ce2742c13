"""Comparing two: safety, answers without an equal, and idle time beside active time."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("project", sa.Column("allows_equal", sa.Boolean(), server_default=sa.text("true"), nullable=False))
    op.add_column("project", sa.Column("asks_safety", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("ranking", sa.Column("idle_s", sa.Float(), nullable=True))
    op.create_check_constraint(op.f("ck_ranking_idle_time"), "ranking", "idle_s >= 0")
    op.add_column("ranking_item", sa.Column("is_safe", sa.Boolean(), nullable=True))


def downgrade() -> None:
    op.drop_column("ranking_item", "is_safe")
    op.drop_constraint(op.f("ck_ranking_idle_time"), "ranking", type_="check")
    op.drop_column("ranking", "idle_s")
    op.drop_column("project", "asks_safety")
    op.drop_column("project", "allows_equal")
