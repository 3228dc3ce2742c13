"""How much an API key may do, and who tried keys and links that nobody issued."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Keys made before, and by a web process of the version before, may go on doing what they did.
    op.add_column("api_key", sa.Column("scope", sa.String(length=24), server_default=sa.text("'all'"), nullable=False))
    op.create_check_constraint(op.f("ck_api_key_scope"), "api_key", "scope IN ('read', 'label', 'all')")
    op.create_table(
        "wrong_token",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("kind", sa.String(length=24), nullable=False),
        sa.Column("place", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind IN ('key', 'link')", name=op.f("ck_wrong_token_kind")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_wrong_token")),
    )
    op.create_index("ix_wrong_token_place", "wrong_token", ["kind", "place", "at"])
    op.create_index("ix_wrong_token_at", "wrong_token", ["at"])


def downgrade() -> None:
    op.drop_table("wrong_token")
    op.drop_column("api_key", "scope")
