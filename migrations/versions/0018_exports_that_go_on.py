"""Exports that go on after a break, and how reliable whoever ranked was when a snapshot was frozen."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "snapshot_labeler",
        sa.Column("snapshot_id", sa.BigInteger(), nullable=False),
        sa.Column("pseudonym", sa.String(), nullable=False),
        sa.Column("num_rankings", sa.BigInteger(), nullable=False),
        sa.Column("num_pairings", sa.BigInteger(), nullable=False),
        sa.Column("agreement", sa.Double(), nullable=True),
        sa.Column("reliability", sa.Double(), nullable=True),
        sa.Column("weight", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["snapshot_id"],
            ["snapshot.id"],
            name=op.f("fk_snapshot_labeler_snapshot_id"),
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint("snapshot_id", "pseudonym", name=op.f("pk_snapshot_labeler")),
    )
    op.create_table(
        "snapshot_slate",
        sa.Column("snapshot_id", sa.BigInteger(), nullable=False),
        sa.Column("slate_id", sa.Uuid(), nullable=False),
        sa.Column("agreement", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["slate_id"], ["slate.id"], name=op.f("fk_snapshot_slate_slate_id")),
        sa.ForeignKeyConstraint(
            ["snapshot_id"],
            ["snapshot.id"],
            name=op.f("fk_snapshot_slate_snapshot_id"),
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint("snapshot_id", "slate_id", name=op.f("pk_snapshot_slate")),
    )
    for table in ("snapshot_labeler", "snapshot_slate"):
        op.execute(
            f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON {table}"
            " FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )
    op.create_table(
        "export_file",
        sa.Column("snapshot_id", sa.BigInteger(), nullable=False),
        sa.Column("tag", sa.String(), nullable=False),
        sa.Column("num_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("starts", sa.ARRAY(sa.BigInteger()), nullable=False),
        sa.ForeignKeyConstraint(["snapshot_id"], ["snapshot.id"], name=op.f("fk_export_file_snapshot_id")),
        sa.PrimaryKeyConstraint("snapshot_id", "tag", name=op.f("pk_export_file")),
    )


def downgrade() -> None:
    for table in ("export_file", "snapshot_slate", "snapshot_labeler"):
        op.drop_table(table)
