"""What the pages of large projects read: quality reports that are kept, and rankings counted by the kind of their slate."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "kept_report",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("report", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("making_until", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_kept_report_project_id")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_kept_report")),
        sa.CheckConstraint("(report IS NULL) = (made_at IS NULL)", name=op.f("ck_kept_report_made_says_when")),
    )
    op.create_index("ix_kept_report_project", "kept_report", ["project_id"])
    op.create_index("ix_ranking_facts_kind", "ranking_facts", ["project_id", "kind", "submitted_at"])


def downgrade() -> None:
    op.drop_index("ix_ranking_facts_kind", "ranking_facts")
    op.drop_table("kept_report")
