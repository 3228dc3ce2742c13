"""The queue of slates: listed and counted by state and kind, by the version that wrote them, and why prompts are out."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

SET_ASIDE = sa.text("set_aside_at IS NOT NULL")


def upgrade() -> None:
    op.create_index("ix_slate_list", "slate", ["project_id", "state", "kind", "created_at", "id"])
    op.create_index("ix_completion_version_slate", "completion", ["policy_version_id", "slate_id"])
    op.drop_index("ix_completion_policy_version", table_name="completion")
    op.create_index("ix_prompt_set_aside", "prompt", ["project_id", "set_aside_reason"], postgresql_where=SET_ASIDE)


def downgrade() -> None:
    op.drop_index("ix_prompt_set_aside", table_name="prompt")
    op.create_index("ix_completion_policy_version", "completion", ["policy_version_id"])
    op.drop_index("ix_completion_version_slate", table_name="completion")
    op.drop_index("ix_slate_list", table_name="slate")
