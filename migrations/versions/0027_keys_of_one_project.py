"""An API key may be for one project alone."""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Keys made before go on in each project of their account.
    op.add_column("api_key", sa.Column("project_id", sa.BigInteger(), nullable=True))
    op.create_foreign_key(op.f("fk_api_key_project_id"), "api_key", "project", ["project_id"], ["id"])


def downgrade() -> None:
    op.drop_column("api_key", "project_id")
