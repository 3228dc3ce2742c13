"""Quality: standing of labelers, adjudication."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

APPEND_ONLY_TABLES = ("ranking_digest", "quality_action", "adjudication")


def upgrade() -> None:
    op.add_column("project", sa.Column("shows_agreement", sa.Boolean(), server_default=sa.text("true"), nullable=False))
    op.create_table(
        "ranking_digest",
        sa.Column("ranking_id", sa.Uuid(), nullable=False),
        sa.Column("ranks", sa.String(), nullable=False),
        sa.Column("places", sa.String(), nullable=True),
        sa.Column("num_characters", sa.BigInteger(), nullable=False),
        sa.Column("qualities", sa.String(), nullable=True),
        sa.Column("flagged", sa.String(), nullable=True),
        sa.Column("flags", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.ForeignKeyConstraint(["ranking_id"], ["ranking.id"], name=op.f("fk_ranking_digest_ranking_id")),
        sa.PrimaryKeyConstraint("ranking_id", name=op.f("pk_ranking_digest")),
    )
    op.create_table(
        "quality_action",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("labeler_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "step",
            sa.Enum("warn", "pause", "review", name="step", native_enum=False, create_constraint=True, length=24),
            nullable=False,
        ),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("lets_work", sa.Boolean(), nullable=True),
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "(step = 'review') = (lets_work IS NOT NULL)", name=op.f("ck_quality_action_reviews_decide")
        ),
        sa.CheckConstraint("reason <> ''", name=op.f("ck_quality_action_reason")),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_quality_action_account_id")),
        sa.ForeignKeyConstraint(["labeler_id"], ["labeler.id"], name=op.f("fk_quality_action_labeler_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quality_action")),
    )
    op.create_index("ix_quality_action_labeler", "quality_action", ["labeler_id"], unique=False)
    op.create_table(
        "adjudication",
        sa.Column("slate_id", sa.Uuid(), nullable=False),
        sa.Column("ranks", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("num_rankings", sa.SmallInteger(), nullable=False),
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("reason <> ''", name=op.f("ck_adjudication_reason")),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_adjudication_account_id")),
        sa.ForeignKeyConstraint(["slate_id"], ["slate.id"], name=op.f("fk_adjudication_slate_id")),
        sa.PrimaryKeyConstraint("slate_id", name=op.f("pk_adjudication")),
    )
    for table in APPEND_ONLY_TABLES:
        op.execute(
            f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON {table}"
            " FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )


def downgrade() -> None:
    for table in reversed(APPEND_ONLY_TABLES):
        op.drop_table(table)
    op.drop_column("project", "shows_agreement")
