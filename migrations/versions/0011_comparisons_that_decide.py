"""Comparisons that decide: a round ends when they do, with what they said; a win rate worth having."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "project", sa.Column("worthwhile_win_rate", sa.Float(), server_default=sa.text("0.6"), nullable=False)
    )
    op.create_check_constraint(op.f("ck_project_worthwhile_win_rate"), "project", "worthwhile_win_rate BETWEEN 0 AND 1")
    op.alter_column("project", "evaluation_comparisons", server_default=sa.text("500"))
    op.add_column("round", sa.Column("verdict", postgresql.JSONB(), nullable=True))


def downgrade() -> None:
    op.drop_column("round", "verdict")
    op.alter_column("project", "evaluation_comparisons", server_default=sa.text("96"))
    op.drop_constraint(op.f("ck_project_worthwhile_win_rate"), "project")
    op.drop_column("project", "worthwhile_win_rate")
