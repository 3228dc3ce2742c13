"""Imported rankings' ids are keyed, results lose erased labels, and evaluations know what they were asked to judge."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

# Each project's own: the table is small, and written anew with a default drawn for each row.
DRAWN_BY_LOT = "decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex')"

# Their reward models' scores are still where the stages left them.
LEFT_BY_EARLIER_ERASURES = """
INSERT INTO redacted_result (erasure_id, reward_model_id, folder)
SELECT redaction.erasure_id, model.id, model.source
FROM redaction
JOIN reward_evaluation AS evaluation ON evaluation.snapshot_id = redaction.snapshot_id AND evaluation.by_stage
JOIN reward_model_version AS model ON model.id = evaluation.reward_model_id
ORDER BY model.id
"""


def upgrade() -> None:
    op.add_column(
        "project", sa.Column("id_secret", sa.LargeBinary(), server_default=sa.text(DRAWN_BY_LOT), nullable=False)
    )
    op.add_column(
        "dataset_import", sa.Column("has_keyed_ids", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    )
    op.add_column("reward_evaluation", sa.Column("num_chosen", sa.BigInteger(), nullable=True))
    op.add_column("reward_evaluation", sa.Column("num_learned", sa.BigInteger(), nullable=True))
    op.create_table(
        "redacted_result",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("erasure_id", sa.BigInteger(), nullable=False),
        sa.Column("reward_model_id", sa.BigInteger(), nullable=False),
        sa.Column("folder", sa.String(), nullable=False),
        sa.Column("former_sha256", sa.String(), nullable=True),
        sa.Column("successor_sha256", sa.String(), nullable=True),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("problem", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["erasure_id"], ["erasure.id"], name=op.f("fk_redacted_result_erasure_id")),
        sa.ForeignKeyConstraint(
            ["reward_model_id"], ["reward_model_version.id"], name=op.f("fk_redacted_result_reward_model_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_redacted_result")),
    )
    op.create_index(
        "ix_redacted_result_waiting", "redacted_result", ["id"], postgresql_where=sa.text("removed_at IS NULL")
    )
    op.execute(LEFT_BY_EARLIER_ERASURES)


def downgrade() -> None:
    op.drop_table("redacted_result")
    op.drop_column("reward_evaluation", "num_learned")
    op.drop_column("reward_evaluation", "num_chosen")
    op.drop_column("dataset_import", "has_keyed_ids")
    op.drop_column("project", "id_secret")
