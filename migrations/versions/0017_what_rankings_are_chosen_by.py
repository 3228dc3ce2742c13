"""What rankings are chosen by: a narrow row for each, kept true by triggers; what a snapshot's card tells."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

# The rows of the rankings that count, stand, and have an item for each completion of their slate: a ranking's items may
# come one after the other, and the last one completes it.
WRITE = """
CREATE FUNCTION write_ranking_facts(rankings uuid[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
INSERT INTO ranking_facts (
    ranking_id, project_id, slate_id, labeler_id, submitted_at, kind, split, prompt_kind, strength, asked_by, k,
    num_comparisons, has_ties, is_imported, is_shared, is_adjudicated, is_sampled, agreement, policy_versions, flags
)
SELECT ranking.id, ranking.project_id, ranking.slate_id, ranking.labeler_id, ranking.submitted_at, slate.kind,
       prompt.split, prompt.kind, ranking.strength, slate.asked_by, slate.k,
       slate.k * (slate.k - 1) / 2 - placed.num_equal, placed.num_equal > 0 AND NOT ranking.is_pick,
       ranking.import_id IS NOT NULL, false, EXISTS (SELECT FROM adjudication WHERE slate_id = ranking.slate_id),
       get_byte(uuid_send(ranking.slate_id), 15) % 16 = 0, NULL,
       ARRAY(SELECT DISTINCT number::int FROM completion
             JOIN policy_version ON policy_version.id = completion.policy_version_id
             WHERE completion.slate_id = ranking.slate_id ORDER BY 1),
       CASE WHEN placed.has_flags THEN ARRAY(
             SELECT DISTINCT flag FROM ranking_item AS item, jsonb_array_elements_text(item.flags) AS flag
             WHERE item.ranking_id = ranking.id ORDER BY 1) ELSE '{}' END
FROM ranking
JOIN slate ON slate.id = ranking.slate_id
JOIN prompt ON prompt.id = slate.prompt_id
CROSS JOIN LATERAL (
    SELECT sum(num) AS num, coalesce(sum(num * (num - 1) / 2), 0) AS num_equal, bool_or(has_flags) AS has_flags
    FROM (SELECT count(*) AS num, bool_or(item.flags <> '[]') AS has_flags FROM ranking_item AS item
          WHERE item.ranking_id = ranking.id GROUP BY item.rank) AS ranks
) AS placed
WHERE ranking.id = ANY (rankings) AND ranking.counted AND ranking.retracted_at IS NULL AND placed.num = slate.k
ON CONFLICT DO NOTHING;
END $$
"""

# What the rankings of a slate say of one another: whether there are several, and how alike they are. Of each two
# completions it counts how many rankings put the one above the other, below it, and beside it; two rankings that say
# the same agree, and one that ties agrees by half with one that does not. What a pick leaves open is not counted.
COMPARE = """
CREATE FUNCTION compare_ranking_facts(slates uuid[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
UPDATE ranking_facts SET is_shared = found.is_shared, agreement = found.agreement
FROM (
    SELECT several.slate_id, several.num > 1 AS is_shared, alike.share AS agreement
    FROM (
        SELECT slate_id, count(*) AS num, min(kind) AS kind FROM ranking_facts
        WHERE slate_id = ANY (slates) GROUP BY slate_id
    ) AS several
    LEFT JOIN LATERAL (
        SELECT sum(above * (above - 1) + below * (below - 1) + beside * (beside - 1) + beside * (above + below))::float8
               / nullif(sum((above + below + beside) * (above + below + beside - 1)), 0)::float8 AS share
        FROM (
            SELECT count(*) FILTER (WHERE one.rank < other.rank) AS above,
                   count(*) FILTER (WHERE one.rank > other.rank) AS below,
                   count(*) FILTER (WHERE one.rank = other.rank AND NOT ranking.is_pick) AS beside
            FROM ranking_facts AS facts
            JOIN ranking ON ranking.id = facts.ranking_id
            JOIN ranking_item AS one ON one.ranking_id = facts.ranking_id
            JOIN ranking_item AS other
                ON other.ranking_id = facts.ranking_id AND other.completion_id > one.completion_id
            WHERE facts.slate_id = several.slate_id
            GROUP BY one.completion_id, other.completion_id
        ) AS counted
    ) AS alike ON several.num > 1 AND several.kind NOT IN ('gold', 'onboarding', 'repeat')
) AS found
WHERE ranking_facts.slate_id = found.slate_id
  AND (ranking_facts.is_shared, ranking_facts.agreement) IS DISTINCT FROM (found.is_shared, found.agreement);
END $$
"""

# Planned once a connection: to plan these statements takes ten times as long as to run them, and a submit waits for them.
# Slates are locked first, as every service that submits, retracts, decides or erases has done by then: two rankings of
# one slate that came together would each be compared without the other.
# Facts go with a ranking that is taken back, and, by their key, with one that is erased; those that stay on the slate
# are compared without it either way.
TRIGGERS = """
CREATE FUNCTION ranking_items_came() RETURNS trigger
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    complete uuid[];
    slates uuid[];
BEGIN
    SELECT array_agg(came.ranking_id), array_agg(DISTINCT came.slate_id) INTO complete, slates
    FROM (SELECT DISTINCT ranking_id, slate_id FROM added) AS came
    JOIN slate ON slate.id = came.slate_id
    WHERE slate.k = (SELECT count(*) FROM ranking_item WHERE ranking_item.ranking_id = came.ranking_id);
    IF complete IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM FROM slate WHERE id = ANY (slates) ORDER BY id FOR NO KEY UPDATE;
    PERFORM write_ranking_facts(complete);
    SELECT array_agg(slate_id) INTO slates
    FROM (SELECT slate_id FROM ranking_facts WHERE slate_id = ANY (slates) GROUP BY slate_id HAVING count(*) > 1) AS _;
    IF slates IS NOT NULL THEN
        PERFORM compare_ranking_facts(slates);
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION ranking_was_retracted() RETURNS trigger
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    PERFORM FROM slate WHERE id = NEW.slate_id FOR NO KEY UPDATE;
    DELETE FROM ranking_facts WHERE ranking_id = NEW.id;
    RETURN NULL;
END $$;

CREATE FUNCTION ranking_facts_went() RETURNS trigger
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    slates uuid[];
BEGIN
    SELECT array_agg(DISTINCT slate_id) INTO slates FROM gone;
    PERFORM FROM slate WHERE id = ANY (slates) ORDER BY id FOR NO KEY UPDATE;
    PERFORM compare_ranking_facts(slates);
    RETURN NULL;
END $$;

CREATE FUNCTION slate_was_decided() RETURNS trigger
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    PERFORM FROM slate WHERE id = NEW.slate_id FOR NO KEY UPDATE;
    UPDATE ranking_facts SET is_adjudicated = true WHERE slate_id = NEW.slate_id;
    RETURN NULL;
END $$;

CREATE TRIGGER facts_of_items AFTER INSERT ON ranking_item REFERENCING NEW TABLE AS added
FOR EACH STATEMENT EXECUTE FUNCTION ranking_items_came();

CREATE TRIGGER facts_of_retraction AFTER UPDATE OF retracted_at ON ranking FOR EACH ROW
WHEN (OLD.retracted_at IS NULL AND NEW.retracted_at IS NOT NULL) EXECUTE FUNCTION ranking_was_retracted();

CREATE TRIGGER facts_of_siblings AFTER DELETE ON ranking_facts REFERENCING OLD TABLE AS gone
FOR EACH STATEMENT EXECUTE FUNCTION ranking_facts_went();

CREATE TRIGGER facts_of_decision AFTER INSERT ON adjudication
FOR EACH ROW EXECUTE FUNCTION slate_was_decided();
"""

# For what was ranked before there were triggers, ten thousand at a time. A slate of one is compared only where its row
# says that there are more: what was loaded, or lost, with triggers off.
FILL = """
CREATE FUNCTION fill_ranking_facts() RETURNS void
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    part uuid[];
BEGIN
    FOR part IN
        SELECT array_agg(id) FROM (
            SELECT id, row_number() OVER (ORDER BY submitted_at, id) / 10000 AS nth FROM ranking
        ) AS placed GROUP BY nth ORDER BY nth
    LOOP
        PERFORM write_ranking_facts(part);
    END LOOP;
    FOR part IN
        SELECT array_agg(slate_id) FROM (
            SELECT slate_id, row_number() OVER () / 10000 AS nth FROM ranking_facts
            GROUP BY slate_id HAVING count(*) > 1 OR bool_or(is_shared)
        ) AS shared GROUP BY nth
    LOOP
        PERFORM compare_ranking_facts(part);
    END LOOP;
END $$
"""

KINDS = ("training", "conversation", "pair", "evaluation", "onboarding", "gold", "imported", "repeat")
PROMPT_KINDS = ("imported", "plain", "few_shot", "user_based", "conversation")
INCLUDED = [
    *("ranking_id", "slate_id", "labeler_id", "kind", "split", "prompt_kind", "strength", "asked_by", "k"),
    *("num_comparisons", "has_ties", "is_imported", "is_shared", "is_adjudicated", "agreement", "policy_versions"),
]


def one_of(name: str, *values: str) -> sa.Enum:
    return sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=24)


def upgrade() -> None:
    op.create_table(
        "ranking_facts",
        sa.Column("ranking_id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("slate_id", sa.Uuid(), nullable=False),
        sa.Column("labeler_id", sa.BigInteger(), nullable=False),
        sa.Column("submitted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", one_of("kind", *KINDS), nullable=False),
        sa.Column("split", one_of("split", "train", "validation", "test"), nullable=False),
        sa.Column("prompt_kind", one_of("prompt_kind", *PROMPT_KINDS), nullable=False),
        sa.Column("strength", one_of("strength", "significantly", "better", "slightly", "negligibly"), nullable=True),
        sa.Column("asked_by", one_of("asked_by", "disagreement", "random"), nullable=True),
        sa.Column("k", sa.SmallInteger(), nullable=False),
        sa.Column("num_comparisons", sa.Integer(), nullable=False),
        sa.Column("has_ties", sa.Boolean(), nullable=False),
        sa.Column("is_imported", sa.Boolean(), nullable=False),
        sa.Column("is_shared", sa.Boolean(), nullable=False),
        sa.Column("is_adjudicated", sa.Boolean(), nullable=False),
        sa.Column("is_sampled", sa.Boolean(), nullable=False),
        sa.Column("agreement", sa.Double(), nullable=True),
        sa.Column("policy_versions", postgresql.ARRAY(sa.Integer()), nullable=False),
        sa.Column("flags", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.ForeignKeyConstraint(
            ["ranking_id"], ["ranking.id"], name=op.f("fk_ranking_facts_ranking_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("ranking_id", name=op.f("pk_ranking_facts")),
    )
    # Rankings of shared slates are written again as others come: leave room for them on their page.
    op.execute("ALTER TABLE ranking_facts SET (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.05)")
    op.create_index("ix_ranking_facts_slate", "ranking_facts", ["slate_id"])
    for statement in (WRITE, COMPARE, FILL, TRIGGERS):
        op.execute(statement)
    op.execute("SELECT fill_ranking_facts()")
    op.create_index("ix_ranking_facts_submitted", "ranking_facts", ["project_id", "submitted_at"])
    op.create_index("ix_ranking_facts_labeler", "ranking_facts", ["project_id", "labeler_id", "submitted_at"])
    op.create_index(
        "ix_ranking_facts_agreement",
        "ranking_facts",
        ["project_id", "agreement"],
        postgresql_where=sa.text("agreement IS NOT NULL"),
    )
    op.create_index(
        "ix_ranking_facts_flagged",
        "ranking_facts",
        ["project_id", "submitted_at"],
        postgresql_where=sa.text("flags <> '{}'::text[]"),
    )
    op.create_index(
        "ix_ranking_facts_sample",
        "ranking_facts",
        ["project_id", "submitted_at"],
        postgresql_where=sa.text("is_sampled"),
        postgresql_include=INCLUDED,
    )
    op.add_column("snapshot", sa.Column("licence", sa.String(), nullable=True))
    op.add_column(
        "snapshot",
        sa.Column("measured", postgresql.JSONB(), server_default=sa.text("'{}'"), nullable=False),
    )
    op.add_column("project", sa.Column("licence", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("project", "licence")
    op.drop_column("snapshot", "measured")
    op.drop_column("snapshot", "licence")
    op.execute("DROP TRIGGER facts_of_decision ON adjudication")
    op.execute("DROP TRIGGER facts_of_siblings ON ranking_facts")
    op.execute("DROP TRIGGER facts_of_retraction ON ranking")
    op.execute("DROP TRIGGER facts_of_items ON ranking_item")
    for function in (
        *("ranking_items_came()", "ranking_was_retracted()", "ranking_facts_went()", "slate_was_decided()"),
        "fill_ranking_facts()",
        *("compare_ranking_facts(uuid[])", "write_ranking_facts(uuid[])"),
    ):
        op.execute(f"DROP FUNCTION {function}")
    op.drop_table("ranking_facts")
