"""Tasks beside ranking: demonstrations and conversations."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def one_of(name: str, *values: str) -> sa.Enum:
    return sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=24)


def moment(name: str, *, nullable: bool = True, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, **options)


def upgrade() -> None:
    op.add_column(
        "project",
        sa.Column("task_weights", postgresql.JSONB(), server_default=sa.text("""'{"rank": 1}'"""), nullable=False),
    )
    op.add_column("project", sa.Column("use_cases", postgresql.JSONB(), server_default=sa.text("'[]'"), nullable=False))
    op.add_column(
        "project", sa.Column("offers_suggestions", sa.Boolean(), server_default=sa.text("true"), nullable=False)
    )
    make_writing()
    extend_demonstration()
    make_conversation_turn()


def make_writing() -> None:
    op.create_table(
        "writing",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("labeler_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "task",
            one_of("task", "answer", "plain", "few_shot", "user_based", "both_sides", "converse"),
            nullable=False,
        ),
        sa.Column("prompt_id", sa.BigInteger(), nullable=True),
        moment("opened_at", nullable=False),
        moment("touched_at", nullable=False),
        moment("closed_at"),
        sa.Column("end", one_of("end", "submitted", "skipped"), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("submission_id", sa.Uuid(), nullable=True),
        sa.Column("revision", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("content", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
        sa.CheckConstraint(
            "(task = 'answer') = (prompt_id IS NOT NULL)", name=op.f("ck_writing_answers_have_a_prompt")
        ),
        sa.CheckConstraint('(closed_at IS NULL) = ("end" IS NULL)', name=op.f("ck_writing_closed_says_how")),
        sa.CheckConstraint(
            "(submission_id IS NULL) OR (\"end\" = 'submitted')", name=op.f("ck_writing_submitted_has_an_id")
        ),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_writing_project_id")),
        sa.ForeignKeyConstraint(["labeler_id"], ["labeler.id"], name=op.f("fk_writing_labeler_id")),
        sa.ForeignKeyConstraint(["prompt_id"], ["prompt.id"], name=op.f("fk_writing_prompt_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_writing")),
        sa.UniqueConstraint("submission_id", name=op.f("uq_writing_submission_id")),
    )
    op.create_index(
        "uq_writing_open", "writing", ["labeler_id", "task"], unique=True, postgresql_where=sa.text("closed_at IS NULL")
    )
    op.create_index("ix_writing_prompt", "writing", ["prompt_id"], postgresql_where=sa.text("prompt_id IS NOT NULL"))


def extend_demonstration() -> None:
    op.add_column("demonstration", sa.Column("writing_id", sa.Uuid(), nullable=True))
    op.add_column("demonstration", sa.Column("use_case", sa.String(), nullable=True))
    op.add_column("demonstration", sa.Column("suggestion", sa.String(), nullable=True))
    op.add_column("demonstration", sa.Column("suggestion_policy_id", sa.BigInteger(), nullable=True))
    op.add_column("demonstration", sa.Column("active_s", sa.Float(), nullable=True))
    op.add_column("demonstration", moment("retracted_at"))
    op.create_foreign_key(op.f("fk_demonstration_writing_id"), "demonstration", "writing", ["writing_id"], ["id"])
    op.create_foreign_key(
        op.f("fk_demonstration_suggestion_policy_id"),
        "demonstration",
        "policy_version",
        ["suggestion_policy_id"],
        ["id"],
    )
    op.create_check_constraint(
        op.f("ck_demonstration_suggestion_says_whose"),
        "demonstration",
        "(suggestion IS NULL) = (suggestion_policy_id IS NULL)",
    )
    op.create_index(
        "ix_demonstration_writing",
        "demonstration",
        ["writing_id"],
        postgresql_where=sa.text("writing_id IS NOT NULL"),
    )


def make_conversation_turn() -> None:
    op.create_table(
        "conversation_turn",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("writing_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.SmallInteger(), nullable=False),
        sa.Column("prompt_id", sa.BigInteger(), nullable=False),
        sa.Column("slate_id", sa.Uuid(), nullable=False),
        moment("asked_at", nullable=False, server_default=sa.text("now()")),
        sa.Column("arrived", postgresql.JSONB(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("order_shown", postgresql.ARRAY(sa.Uuid()), nullable=True),
        sa.Column("ranking_id", sa.Uuid(), nullable=True),
        sa.Column("chosen_id", sa.Uuid(), nullable=True),
        sa.Column("was_ranked", sa.Boolean(), nullable=True),
        sa.Column("strength", one_of("strength", "significantly", "better", "slightly", "negligibly"), nullable=True),
        sa.Column("demonstration_id", sa.Uuid(), nullable=True),
        sa.Column("active_s", sa.Float(), nullable=True),
        moment("withdrawn_at"),
        sa.CheckConstraint(
            "(ranking_id IS NULL) = (chosen_id IS NULL)", name=op.f("ck_conversation_turn_judged_chooses")
        ),
        sa.CheckConstraint(
            "(ranking_id IS NULL) = (was_ranked IS NULL)", name=op.f("ck_conversation_turn_judged_says_how")
        ),
        sa.CheckConstraint("strength IS NULL OR NOT was_ranked", name=op.f("ck_conversation_turn_strength_of_a_pick")),
        sa.CheckConstraint(
            "demonstration_id IS NULL OR chosen_id IS NOT NULL",
            name=op.f("ck_conversation_turn_edits_what_was_chosen"),
        ),
        sa.CheckConstraint(
            "withdrawn_at IS NULL OR ranking_id IS NULL", name=op.f("ck_conversation_turn_judged_stays")
        ),
        sa.ForeignKeyConstraint(["writing_id"], ["writing.id"], name=op.f("fk_conversation_turn_writing_id")),
        sa.ForeignKeyConstraint(["prompt_id"], ["prompt.id"], name=op.f("fk_conversation_turn_prompt_id")),
        sa.ForeignKeyConstraint(["slate_id"], ["slate.id"], name=op.f("fk_conversation_turn_slate_id")),
        sa.ForeignKeyConstraint(["ranking_id"], ["ranking.id"], name=op.f("fk_conversation_turn_ranking_id")),
        sa.ForeignKeyConstraint(["chosen_id"], ["completion.id"], name=op.f("fk_conversation_turn_chosen_id")),
        sa.ForeignKeyConstraint(
            ["demonstration_id"], ["demonstration.id"], name=op.f("fk_conversation_turn_demonstration_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_conversation_turn")),
        sa.UniqueConstraint("writing_id", "number", name=op.f("uq_conversation_turn_writing_id_number")),
        sa.UniqueConstraint("slate_id", name=op.f("uq_conversation_turn_slate_id")),
        sa.UniqueConstraint("ranking_id", name=op.f("uq_conversation_turn_ranking_id")),
    )


def downgrade() -> None:
    op.drop_table("conversation_turn")
    op.drop_index("ix_demonstration_writing", "demonstration")
    op.drop_constraint(op.f("ck_demonstration_suggestion_says_whose"), "demonstration")
    for column in ("writing_id", "use_case", "suggestion", "suggestion_policy_id", "active_s", "retracted_at"):
        op.drop_column("demonstration", column)
    op.drop_table("writing")
    for column in ("task_weights", "use_cases", "offers_suggestions"):
        op.drop_column("project", column)
