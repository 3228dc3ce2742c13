"""Which versions wrote a slate, in the order of time; which have become known ones; what members did."""

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

WRITTEN = "SELECT DISTINCT policy_version_id, slate_id FROM {completions} WHERE policy_version_id IS NOT NULL"
FILL = """
INSERT INTO slate_version (policy_version_id, kind, created_at, slate_id)
SELECT written.policy_version_id, slate.kind, slate.created_at, slate.id
FROM ({written}) AS written JOIN slate ON slate.id = written.slate_id
"""

# Whoever writes completions, a program of the version before too, says with them who wrote the slate.
TRIGGER = f"""
CREATE FUNCTION completions_came() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    {FILL.format(written=WRITTEN.format(completions="added"))}
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;

CREATE TRIGGER versions_of_slates AFTER INSERT ON completion REFERENCING NEW TABLE AS added
FOR EACH STATEMENT EXECUTE FUNCTION completions_came();
"""


def upgrade() -> None:
    op.create_table(
        "slate_version",
        sa.Column("policy_version_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(24), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("slate_id", sa.Uuid(), nullable=False),
    )
    op.execute(FILL.format(written=WRITTEN.format(completions="completion")))
    op.create_primary_key(
        op.f("pk_slate_version"), "slate_version", ["policy_version_id", "kind", "created_at", "slate_id"]
    )
    op.create_foreign_key(
        op.f("fk_slate_version_policy_version_id"), "slate_version", "policy_version", ["policy_version_id"], ["id"]
    )
    op.create_foreign_key(op.f("fk_slate_version_slate_id"), "slate_version", "slate", ["slate_id"], ["id"])
    op.execute(TRIGGER)
    # It served the same question and nothing else, at ten times the size; a program that still asks there is slower.
    op.drop_index("ix_completion_version_slate", "completion")
    op.create_index(
        "ix_slate_known", "slate", ["repeats_id"], postgresql_where=sa.text("kind IN ('gold', 'onboarding')")
    )
    op.drop_index("ix_ranking_labeler_submitted", "ranking")  # made anew: members' work is read from it alone
    op.create_index(
        "ix_ranking_labeler_submitted", "ranking", ["labeler_id", "submitted_at"], postgresql_include=["retracted_at"]
    )


def downgrade() -> None:
    op.drop_index("ix_ranking_labeler_submitted", "ranking")
    op.create_index("ix_ranking_labeler_submitted", "ranking", ["labeler_id", "submitted_at"])
    op.drop_index("ix_slate_known", "slate")
    op.create_index("ix_completion_version_slate", "completion", ["policy_version_id", "slate_id"])
    op.execute("DROP TRIGGER versions_of_slates ON completion")
    op.execute("DROP FUNCTION completions_came()")
    op.drop_table("slate_version")
