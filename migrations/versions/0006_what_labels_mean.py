"""What labels mean: picks are no ties, decisions and demonstrations are frozen with a snapshot."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

STRENGTHS = ("significantly", "better", "slightly", "negligibly")

# Rankings are append-only, and this says of them what was known all along: the turn they belong to held it.
PICKS = """
ALTER TABLE ranking DISABLE TRIGGER only_retraction;
UPDATE ranking SET is_pick = true, strength = turn.strength
FROM conversation_turn AS turn WHERE turn.ranking_id = ranking.id AND NOT turn.was_ranked;
ALTER TABLE ranking ENABLE TRIGGER only_retraction;
"""

KEEP_FROZEN = """
CREATE FUNCTION keep_frozen_demonstration() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM snapshot_demonstration WHERE demonstration_id = OLD.id) THEN
        RAISE EXCEPTION 'demonstration % is in a snapshot', OLD.id USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER keep_frozen BEFORE UPDATE ON demonstration
FOR EACH ROW EXECUTE FUNCTION keep_frozen_demonstration();

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON snapshot_demonstration
FOR EACH ROW EXECUTE FUNCTION refuse_change();
"""


def upgrade() -> None:
    op.add_column("ranking", sa.Column("is_pick", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.execute(PICKS)
    op.drop_column("conversation_turn", "was_ranked")  # with the constraints that name it
    op.drop_column("conversation_turn", "strength")
    op.add_column(
        "snapshot_ranking", sa.Column("is_adjudicated", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    )
    op.add_column(
        "snapshot", sa.Column("num_demonstrations", sa.BigInteger(), server_default=sa.text("0"), nullable=False)
    )
    op.add_column("snapshot", sa.Column("sft_sha256", sa.String(), nullable=True))
    op.create_table(
        "snapshot_demonstration",
        sa.Column("snapshot_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("demonstration_id", sa.Uuid(), nullable=False),
        sa.Column("pseudonym", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(
            ["demonstration_id"], ["demonstration.id"], name=op.f("fk_snapshot_demonstration_demonstration_id")
        ),
        sa.ForeignKeyConstraint(
            ["snapshot_id"],
            ["snapshot.id"],
            name=op.f("fk_snapshot_demonstration_snapshot_id"),
            deferrable=True,
            initially="DEFERRED",
        ),
        sa.PrimaryKeyConstraint("snapshot_id", "position", name=op.f("pk_snapshot_demonstration")),
        sa.UniqueConstraint(
            "snapshot_id", "demonstration_id", name=op.f("uq_snapshot_demonstration_snapshot_id_demonstration_id")
        ),
    )
    op.create_index(
        "ix_snapshot_demonstration_demonstration", "snapshot_demonstration", ["demonstration_id"], unique=False
    )
    op.execute(KEEP_FROZEN)


def downgrade() -> None:
    op.execute("DROP TRIGGER keep_frozen ON demonstration")
    op.execute("DROP FUNCTION keep_frozen_demonstration()")
    op.drop_table("snapshot_demonstration")
    op.drop_column("snapshot", "sft_sha256")
    op.drop_column("snapshot", "num_demonstrations")
    op.drop_column("snapshot_ranking", "is_adjudicated")
    op.add_column("conversation_turn", sa.Column("was_ranked", sa.Boolean(), nullable=True))
    op.add_column(
        "conversation_turn",
        sa.Column(
            "strength",
            sa.Enum(*STRENGTHS, name=op.f("ck_conversation_turn_strength"), native_enum=False, create_constraint=True),
            nullable=True,
        ),
    )
    op.execute(
        "UPDATE conversation_turn AS turn SET was_ranked = NOT ranking.is_pick, strength = ranking.strength"
        " FROM ranking WHERE ranking.id = turn.ranking_id"
    )
    op.create_check_constraint(
        op.f("ck_conversation_turn_judged_says_how"), "conversation_turn", "(ranking_id IS NULL) = (was_ranked IS NULL)"
    )
    op.create_check_constraint(
        op.f("ck_conversation_turn_strength_of_a_pick"), "conversation_turn", "strength IS NULL OR NOT was_ranked"
    )
    op.drop_column("ranking", "is_pick")
