"""When each prompt was taken for the queue last, and in which order they stand: the next is found in an index."""

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None

FILL = """
UPDATE project SET num_planned = planned.num
FROM (SELECT project_id, count(*) AS num FROM slate WHERE kind IN ('training', 'pair') GROUP BY project_id) AS planned
WHERE planned.project_id = project.id;

UPDATE prompt SET last_taken_at = planned.at
FROM (SELECT prompt_id, max(created_at) AS at FROM slate WHERE kind IN ('training', 'pair') GROUP BY prompt_id) AS planned
WHERE planned.prompt_id = prompt.id;
"""
ARE_TAKEN = sa.text("split <> 'test' AND set_aside_at IS NULL")
PLACE = sa.text("md5(id::text)")

# Whoever plans slates, a program of the version before too, need not know that it is noted.
TRIGGER = """
CREATE FUNCTION slates_came() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE prompt SET last_taken_at = planned.at
    FROM (
        SELECT prompt_id, max(created_at) AS at FROM added WHERE kind IN ('training', 'pair') GROUP BY prompt_id
    ) AS planned
    WHERE prompt.id = planned.prompt_id;
    UPDATE project SET num_planned = num_planned + planned.num
    FROM (
        SELECT project_id, count(*) AS num FROM added WHERE kind IN ('training', 'pair') GROUP BY project_id
    ) AS planned
    WHERE project.id = planned.project_id;
    RETURN NULL;
END $$;

CREATE TRIGGER turns_of_prompts AFTER INSERT ON slate REFERENCING NEW TABLE AS added
FOR EACH STATEMENT EXECUTE FUNCTION slates_came();
"""


def upgrade() -> None:
    op.add_column("project", sa.Column("num_planned", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.add_column("prompt", sa.Column("last_taken_at", sa.DateTime(timezone=True)))
    op.execute(FILL)
    op.execute(TRIGGER)
    by_turn = ["project_id", "use", sa.text("last_taken_at NULLS FIRST"), PLACE]
    op.create_index("ix_prompt_turn", "prompt", by_turn, postgresql_where=ARE_TAKEN)
    op.create_index("ix_prompt_shuffled", "prompt", ["project_id", PLACE], postgresql_where=ARE_TAKEN)


def downgrade() -> None:
    op.execute("DROP TRIGGER turns_of_prompts ON slate")
    op.execute("DROP FUNCTION slates_came()")
    op.drop_index("ix_prompt_shuffled", "prompt")
    op.drop_index("ix_prompt_turn", "prompt")
    op.drop_column("prompt", "last_taken_at")
    op.drop_column("project", "num_planned")
