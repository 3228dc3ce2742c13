"""Imports that take minutes: how far one has come, why one failed, and what each line became."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    states = sa.Enum("running", "done", "failed", name="state", native_enum=False, create_constraint=True, length=24)
    op.add_column("dataset_import", sa.Column("state", states, server_default=sa.text("'done'"), nullable=False))
    op.add_column(
        "dataset_import", sa.Column("is_trial", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    )
    op.add_column(
        "dataset_import",
        sa.Column("problems", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'[]'"), nullable=False),
    )
    for name in ("num_bytes", "num_bytes_read", "num_lines_read"):
        op.add_column("dataset_import", sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    for name in ("heartbeat_at", "finished_at"):
        op.add_column("dataset_import", sa.Column(name, sa.DateTime(timezone=True), nullable=True))
    op.execute("UPDATE dataset_import SET finished_at = created_at")
    op.create_index("ix_dataset_import_project", "dataset_import", ["project_id", "id"])
    op.create_table(
        "dataset_import_lines",
        sa.Column("import_id", sa.BigInteger(), nullable=False),
        sa.Column("block", sa.BigInteger(), nullable=False),
        sa.Column("packed", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["import_id"], ["dataset_import.id"], name=op.f("fk_dataset_import_lines_import_id")),
        sa.PrimaryKeyConstraint("import_id", "block", name=op.f("pk_dataset_import_lines")),
    )


def downgrade() -> None:
    op.drop_table("dataset_import_lines")
    op.execute("DELETE FROM dataset_import WHERE is_trial OR state <> 'done'")
    op.drop_index("ix_dataset_import_project", table_name="dataset_import")
    for name in ("finished_at", "heartbeat_at", "num_lines_read", "num_bytes_read", "num_bytes"):
        op.drop_column("dataset_import", name)
    op.drop_column("dataset_import", "problems")
    op.drop_column("dataset_import", "is_trial")
    op.drop_column("dataset_import", "state")
