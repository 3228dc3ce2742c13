"""A demonstration says itself which project and split its prompt is of: those are counted without reading prompts.

The columns may be null to the schema, so that a version that does not know them inserts; the trigger sets them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

PROMPT_KINDS = "imported", "plain", "few_shot", "user_based", "conversation"
SPLITS = "train", "validation", "test"

# Whoever adds one, a program of the version before too, names the prompt, and the database what follows from it.
TRIGGER = """
CREATE FUNCTION demonstration_came() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SELECT project_id, split, kind INTO NEW.project_id, NEW.split, NEW.prompt_kind
    FROM prompt WHERE id = NEW.prompt_id;
    RETURN NEW;
END $$;

CREATE TRIGGER where_it_belongs BEFORE INSERT OR UPDATE OF prompt_id ON demonstration
FOR EACH ROW EXECUTE FUNCTION demonstration_came();
"""
FILL = """
ALTER TABLE demonstration DISABLE TRIGGER keep_frozen;
UPDATE demonstration SET project_id = prompt.project_id, split = prompt.split, prompt_kind = prompt.kind
FROM prompt WHERE prompt.id = demonstration.prompt_id;
ALTER TABLE demonstration ENABLE TRIGGER keep_frozen;
"""


def one_of(name: str, *values: str) -> sa.Enum:
    return sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=24)


def upgrade() -> None:
    op.add_column("demonstration", sa.Column("project_id", sa.BigInteger()))
    op.add_column("demonstration", sa.Column("split", one_of("split", *SPLITS)))
    op.add_column("demonstration", sa.Column("prompt_kind", one_of("prompt_kind", *PROMPT_KINDS)))
    op.execute(FILL)
    op.execute(TRIGGER)
    op.create_index(
        "ix_demonstration_project",
        "demonstration",
        ["project_id", "created_at"],
        postgresql_where=sa.text("retracted_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_demonstration_project", "demonstration")
    op.execute("DROP TRIGGER where_it_belongs ON demonstration")
    op.execute("DROP FUNCTION demonstration_came()")
    for column in ("prompt_kind", "split", "project_id"):
        op.drop_column("demonstration", column)
