"""What to ask next: slates chosen because reward models disagree on them, a share at random and marked."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("project", sa.Column("disagreement_share", sa.Float(), server_default=sa.text("0"), nullable=False))
    op.add_column(
        "project", sa.Column("asking_candidates", sa.BigInteger(), server_default=sa.text("4"), nullable=False)
    )
    op.create_check_constraint(
        op.f("ck_project_asking"),
        "project",
        "disagreement_share BETWEEN 0 AND 1 AND asking_candidates BETWEEN 2 AND 8",
    )
    op.add_column("slate", sa.Column("disagreement", sa.Double(), nullable=True))
    op.add_column("slate", sa.Column("asked_by", sa.String(24), nullable=True))
    op.create_check_constraint(op.f("ck_slate_asked_by"), "slate", "asked_by IN ('disagreement', 'random')")


def downgrade() -> None:
    op.drop_constraint(op.f("ck_slate_asked_by"), "slate")
    op.drop_column("slate", "asked_by")
    op.drop_column("slate", "disagreement")
    op.drop_constraint(op.f("ck_project_asking"), "project")
    op.drop_column("project", "asking_candidates")
    op.drop_column("project", "disagreement_share")
