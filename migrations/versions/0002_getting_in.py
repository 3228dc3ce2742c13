"""Getting in, and slates with a known answer."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

KINDS = ("training", "conversation", "pair", "evaluation", "onboarding", "gold", "imported")
PROJECT_COLUMNS = (
    ("onboarding_threshold", sa.Float(), "0.75"),
    ("onboarding_tries", sa.BigInteger(), "2"),
    ("shared_share", sa.Float(), "0.15"),
    ("shared_overlap", sa.BigInteger(), "3"),
    ("gold_share", sa.Float(), "0.05"),
    ("repeat_share", sa.Float(), "0.02"),
    ("repeat_after_days", sa.BigInteger(), "14"),
)
APPEND_ONLY_TABLES = ("guidelines_acceptance", "reference_ranking", "onboarding_answer")


def upgrade() -> None:
    _project_settings()
    _slates()
    _acceptance()
    _known_answers()
    _newcomers()
    for table in APPEND_ONLY_TABLES:
        op.execute(
            f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON {table}"
            " FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )


def _project_settings() -> None:
    for name, kind, default in PROJECT_COLUMNS:
        op.add_column("project", sa.Column(name, kind, server_default=sa.text(default), nullable=False))
    op.create_check_constraint(
        op.f("ck_project_known_answers"),
        "project",
        "onboarding_threshold BETWEEN 0 AND 1 AND onboarding_tries >= 1 AND shared_share BETWEEN 0 AND 1"
        " AND shared_overlap >= 2 AND gold_share >= 0 AND repeat_share >= 0 AND gold_share + repeat_share <= 1"
        " AND repeat_after_days >= 1",
    )


def _slates() -> None:
    op.add_column("slate", sa.Column("repeats_id", sa.Uuid(), nullable=True))
    op.add_column("slate", sa.Column("for_labeler_id", sa.BigInteger(), nullable=True))
    op.create_foreign_key(op.f("fk_slate_repeats_id"), "slate", "slate", ["repeats_id"], ["id"])
    op.create_foreign_key(op.f("fk_slate_for_labeler_id"), "slate", "labeler", ["for_labeler_id"], ["id"])
    _kinds_are((*KINDS, "repeat"))
    op.create_check_constraint(
        op.f("ck_slate_repeat_says_of_what"),
        "slate",
        "kind <> 'repeat' OR (repeats_id IS NOT NULL AND for_labeler_id IS NOT NULL)",
    )
    op.create_index(
        "uq_slate_repeat",
        "slate",
        ["repeats_id", "for_labeler_id"],
        unique=True,
        postgresql_where=sa.text("kind = 'repeat'"),
    )
    op.create_index(
        "ix_slate_for_labeler",
        "slate",
        ["for_labeler_id"],
        postgresql_where=sa.text("state = 'ready' AND for_labeler_id IS NOT NULL"),
    )


def _kinds_are(kinds: tuple[str, ...]) -> None:
    op.drop_constraint(op.f("ck_slate_kind"), "slate", type_="check")
    names = ", ".join(f"'{kind}'" for kind in kinds)
    op.create_check_constraint(op.f("ck_slate_kind"), "slate", f"kind IN ({names})")


def _acceptance() -> None:
    op.add_column(
        "guidelines", sa.Column("needs_acceptance", sa.Boolean(), server_default=sa.text("true"), nullable=False)
    )
    op.create_table(
        "guidelines_acceptance",
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("guidelines_id", sa.BigInteger(), nullable=False),
        sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_guidelines_acceptance_account_id")),
        sa.ForeignKeyConstraint(
            ["guidelines_id"], ["guidelines.id"], name=op.f("fk_guidelines_acceptance_guidelines_id")
        ),
        sa.PrimaryKeyConstraint("account_id", "guidelines_id", name=op.f("pk_guidelines_acceptance")),
    )


def _known_answers() -> None:
    op.create_table(
        "reference_ranking",
        sa.Column("slate_id", sa.Uuid(), nullable=False),
        sa.Column("ranks", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_reference_ranking_account_id")),
        sa.ForeignKeyConstraint(["slate_id"], ["slate.id"], name=op.f("fk_reference_ranking_slate_id")),
        sa.PrimaryKeyConstraint("slate_id", name=op.f("pk_reference_ranking")),
    )


def _newcomers() -> None:
    op.create_table(
        "onboarding",
        sa.Column("labeler_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("try_number", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("extra_tries", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("entered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("admitted_by", sa.BigInteger(), nullable=True),
        sa.Column("waits_since", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("entered_at IS NULL OR waits_since IS NULL", name=op.f("ck_onboarding_enters_or_waits")),
        sa.CheckConstraint(
            "admitted_by IS NULL OR entered_at IS NOT NULL", name=op.f("ck_onboarding_the_admitted_have_entered")
        ),
        sa.CheckConstraint("try_number >= 1 AND extra_tries >= 0", name=op.f("ck_onboarding_tries")),
        sa.ForeignKeyConstraint(["admitted_by"], ["account.id"], name=op.f("fk_onboarding_admitted_by")),
        sa.ForeignKeyConstraint(["labeler_id"], ["labeler.id"], name=op.f("fk_onboarding_labeler_id")),
        sa.PrimaryKeyConstraint("labeler_id", name=op.f("pk_onboarding")),
    )
    op.create_table(
        "onboarding_answer",
        sa.Column("ranking_id", sa.Uuid(), nullable=False),
        sa.Column("labeler_id", sa.BigInteger(), nullable=False),
        sa.Column("slate_id", sa.Uuid(), nullable=False),
        sa.Column("try_number", sa.BigInteger(), nullable=False),
        sa.Column("num_agreed", sa.Float(), nullable=False),
        sa.Column("num_pairs", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "num_pairs >= 1 AND num_agreed BETWEEN 0 AND num_pairs", name=op.f("ck_onboarding_answer_pairs")
        ),
        sa.ForeignKeyConstraint(
            ["labeler_id"], ["onboarding.labeler_id"], name=op.f("fk_onboarding_answer_labeler_id")
        ),
        sa.ForeignKeyConstraint(["ranking_id"], ["ranking.id"], name=op.f("fk_onboarding_answer_ranking_id")),
        sa.ForeignKeyConstraint(["slate_id"], ["slate.id"], name=op.f("fk_onboarding_answer_slate_id")),
        sa.PrimaryKeyConstraint("ranking_id", name=op.f("pk_onboarding_answer")),
    )
    op.create_index("uq_onboarding_answer", "onboarding_answer", ["labeler_id", "try_number", "slate_id"], unique=True)


def downgrade() -> None:
    """Refused by the database while repeat slates exist: their rankings cannot be thrown away."""
    for table in ("onboarding_answer", "onboarding", "reference_ranking", "guidelines_acceptance"):
        op.drop_table(table)
    op.drop_column("guidelines", "needs_acceptance")
    op.drop_index("ix_slate_for_labeler", table_name="slate")
    op.drop_index("uq_slate_repeat", table_name="slate")
    op.drop_constraint(op.f("ck_slate_repeat_says_of_what"), "slate", type_="check")
    _kinds_are(KINDS)
    op.drop_column("slate", "for_labeler_id")
    op.drop_column("slate", "repeats_id")
    op.drop_constraint(op.f("ck_project_known_answers"), "project", type_="check")
    for name, _, _ in PROJECT_COLUMNS:
        op.drop_column("project", name)
