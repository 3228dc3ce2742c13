"""Privacy: who may see names, and the erasure of a person as the one exception to what is append-only.

What is append-only stays so for everybody but an erasure: a trigger lets a row go, or be emptied, only if it belongs to
a person whom an erasure names, and only in the transaction that wrote this erasure down.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

# An erasure's row carries the number and the time of the transaction that wrote it: no later one can claim its
# exceptions, not even in a cluster that a backup was restored into, where numbers begin anew.
IS_BEING_ERASED = """
CREATE FUNCTION is_being_erased(who bigint) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT FROM erased_labeler JOIN erasure ON erasure.id = erased_labeler.erasure_id
        WHERE erased_labeler.labeler_id = who AND erasure.transaction_id = pg_current_xact_id()::text
        AND erasure.at = transaction_timestamp()
    )
$$;

CREATE FUNCTION an_erasure_is_under_way() RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT FROM erasure WHERE transaction_id = pg_current_xact_id()::text AND at = transaction_timestamp()
    )
$$;
"""

# Of the person's own labels everything may go, of their history nothing but words; of a snapshot what its redacted
# successor leaves out. Demonstrations and others' rankings need no exception: out of its snapshots, each can be taken
# back as ever.
EXCEPTIONS = """
CREATE OR REPLACE FUNCTION allow_only_retraction() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF is_being_erased(OLD.labeler_id) AND to_jsonb(OLD) - 'note' = to_jsonb(NEW) - 'note' THEN
        RETURN NEW;
    END IF;
    IF OLD.retracted_at IS NULL AND NEW.retracted_at IS NOT NULL
       AND to_jsonb(OLD) - 'retracted_at' = to_jsonb(NEW) - 'retracted_at' THEN
        IF EXISTS (SELECT FROM snapshot_ranking WHERE ranking_id = OLD.id) THEN
            RAISE EXCEPTION 'ranking % is in a snapshot', OLD.id USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'ranking is append-only' USING ERRCODE = 'integrity_constraint_violation';
END $$;

CREATE FUNCTION refuse_change_of_labels() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    who bigint;
BEGIN
    IF TG_TABLE_NAME IN ('ranking', 'onboarding_answer', 'quality_action') THEN
        who := OLD.labeler_id;
    ELSE
        SELECT labeler_id INTO who FROM ranking WHERE id = OLD.ranking_id;
    END IF;
    IF NOT is_being_erased(who) THEN
        RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    IF TG_TABLE_NAME = 'ranking_item' AND to_jsonb(OLD) - 'note' = to_jsonb(NEW) - 'note' THEN
        RETURN NEW;
    END IF;
    IF TG_TABLE_NAME = 'quality_action' AND to_jsonb(OLD) - 'reason' = to_jsonb(NEW) - 'reason' THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
END $$;

CREATE FUNCTION refuse_change_of_history() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND to_jsonb(OLD) - 'detail' = to_jsonb(NEW) - 'detail'
       AND NEW.detail = OLD.detail - ARRAY['reason', 'name', 'email', 'said'] AND EXISTS (
           SELECT FROM erasure LEFT JOIN erased_labeler ON erased_labeler.erasure_id = erasure.id
           LEFT JOIN account ON account.id = erasure.account_id
           WHERE erasure.transaction_id = pg_current_xact_id()::text AND erasure.at = transaction_timestamp()
           AND (OLD.subject IN ('account:' || erasure.account_id, 'labeler:' || erased_labeler.labeler_id)
                OR (OLD.action LIKE 'key.%'
                    AND (OLD.account_id = erasure.account_id
                         OR OLD.detail ->> 'account' = 'account:' || erasure.account_id))
                OR OLD.detail ->> 'email' = account.email
                OR strpos(OLD.detail ->> 'said', account.email) > 0)
       ) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'audit_event is append-only' USING ERRCODE = 'integrity_constraint_violation';
END $$;

CREATE FUNCTION refuse_change_of_decisions() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND to_jsonb(OLD) - 'reason' = to_jsonb(NEW) - 'reason' AND EXISTS (
           SELECT FROM erasure WHERE transaction_id = pg_current_xact_id()::text AND at = transaction_timestamp()
           AND account_id = OLD.account_id
       ) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
END $$;

CREATE FUNCTION refuse_change_of_snapshots() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND an_erasure_is_under_way()
       AND EXISTS (SELECT FROM redaction WHERE snapshot_id = OLD.snapshot_id) THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
END $$;
"""

# table -> what it was refused before, and by which function it is from now on.
GUARDED = {
    "ranking": ("DELETE", "refuse_change_of_labels"),
    "ranking_item": ("UPDATE OR DELETE", "refuse_change_of_labels"),
    "ranking_digest": ("UPDATE OR DELETE", "refuse_change_of_labels"),
    "retraction": ("UPDATE OR DELETE", "refuse_change_of_labels"),
    "onboarding_answer": ("UPDATE OR DELETE", "refuse_change_of_labels"),
    "quality_action": ("UPDATE OR DELETE", "refuse_change_of_labels"),
    "adjudication": ("UPDATE OR DELETE", "refuse_change_of_decisions"),
    "reference_ranking": ("UPDATE OR DELETE", "refuse_change_of_decisions"),
    "audit_event": ("UPDATE OR DELETE", "refuse_change_of_history"),
    "snapshot_ranking": ("UPDATE OR DELETE", "refuse_change_of_snapshots"),
    "snapshot_demonstration": ("UPDATE OR DELETE", "refuse_change_of_snapshots"),
    "snapshot_labeler": ("UPDATE OR DELETE", "refuse_change_of_snapshots"),
    "snapshot_slate": ("UPDATE OR DELETE", "refuse_change_of_snapshots"),
}


# What a person wrote, and where it is shown: found without reading every completion.
INDEXES = {
    "ix_completion_demonstration": ("completion", "demonstration_id"),
    "ix_demonstration_labeler": ("demonstration", "labeler_id"),
}


def upgrade() -> None:
    op.add_column("membership", sa.Column("sees_names", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("account", sa.Column("erased_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("labeler", sa.Column("erased_at", sa.DateTime(timezone=True), nullable=True))
    op.drop_constraint(op.f("ck_labeler_has_one_origin"), "labeler", type_="check")
    op.create_check_constraint(
        op.f("ck_labeler_has_one_origin"),
        "labeler",
        "CASE WHEN erased_at IS NULL THEN (account_id IS NULL) <> (external_id IS NULL)"
        " ELSE account_id IS NULL AND external_id IS NULL END",
    )
    _erasures()
    for name, (table, column) in INDEXES.items():
        op.create_index(name, table, [column], postgresql_where=sa.text(f"{column} IS NOT NULL"))
    op.execute(IS_BEING_ERASED)
    op.execute(EXCEPTIONS)
    for table, (events, function) in GUARDED.items():
        _guard(table, events, function)
    for table in ("erasure", "erased_labeler", "redaction"):
        op.execute(
            f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON {table}"
            " FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )


def _erasures() -> None:
    op.create_table(
        "erasure",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column(
            "extent",
            sa.Enum("link", "labels", name="extent", native_enum=False, create_constraint=True, length=24),
            nullable=False,
        ),
        sa.Column("account_id", sa.BigInteger(), nullable=True),
        sa.Column("by_account_id", sa.BigInteger(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("transaction_id", sa.String(), nullable=False),
        sa.Column("report", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_erasure_account_id")),
        sa.ForeignKeyConstraint(["by_account_id"], ["account.id"], name=op.f("fk_erasure_by_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_erasure")),
    )
    op.create_index("ix_erasure_transaction", "erasure", ["transaction_id"], unique=False)
    op.create_table(
        "erased_labeler",
        sa.Column("labeler_id", sa.BigInteger(), nullable=False),
        sa.Column("erasure_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["labeler_id"], ["labeler.id"], name=op.f("fk_erased_labeler_labeler_id")),
        sa.ForeignKeyConstraint(["erasure_id"], ["erasure.id"], name=op.f("fk_erased_labeler_erasure_id")),
        sa.PrimaryKeyConstraint("labeler_id", "erasure_id", name=op.f("pk_erased_labeler")),
    )
    op.create_table(
        "redaction",
        sa.Column("snapshot_id", sa.BigInteger(), nullable=False),
        sa.Column("successor_id", sa.BigInteger(), nullable=True),
        sa.Column("erasure_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["snapshot_id"], ["snapshot.id"], name=op.f("fk_redaction_snapshot_id")),
        sa.ForeignKeyConstraint(
            ["successor_id"],
            ["snapshot.id"],
            name=op.f("fk_redaction_successor_id"),
            deferrable=True,
            initially="DEFERRED",
        ),
        sa.ForeignKeyConstraint(["erasure_id"], ["erasure.id"], name=op.f("fk_redaction_erasure_id")),
        sa.PrimaryKeyConstraint("snapshot_id", name=op.f("pk_redaction")),
    )
    op.create_table(
        "doomed_folder",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("erasure_id", sa.BigInteger(), nullable=False),
        sa.Column("folder", sa.String(), nullable=False),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("problem", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["erasure_id"], ["erasure.id"], name=op.f("fk_doomed_folder_erasure_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_doomed_folder")),
    )
    op.create_index(
        "ix_doomed_folder_waiting",
        "doomed_folder",
        ["id"],
        unique=False,
        postgresql_where=sa.text("removed_at IS NULL"),
    )


def _guard(table: str, events: str, function: str) -> None:
    op.execute(f"DROP TRIGGER append_only ON {table}")
    op.execute(f"CREATE TRIGGER append_only BEFORE {events} ON {table} FOR EACH ROW EXECUTE FUNCTION {function}()")


RETRACTION_ALONE = """
CREATE OR REPLACE FUNCTION allow_only_retraction() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.retracted_at IS NULL AND NEW.retracted_at IS NOT NULL
       AND to_jsonb(OLD) - 'retracted_at' = to_jsonb(NEW) - 'retracted_at' THEN
        IF EXISTS (SELECT FROM snapshot_ranking WHERE ranking_id = OLD.id) THEN
            RAISE EXCEPTION 'ranking % is in a snapshot', OLD.id USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'ranking is append-only' USING ERRCODE = 'integrity_constraint_violation';
END $$;
"""


def downgrade() -> None:
    for table, (events, _) in GUARDED.items():
        _guard(table, events, "refuse_change")
    op.execute(RETRACTION_ALONE)
    for function in (
        "refuse_change_of_labels",
        "refuse_change_of_history",
        "refuse_change_of_decisions",
        "refuse_change_of_snapshots",
        "an_erasure_is_under_way",
    ):
        op.execute(f"DROP FUNCTION {function}()")
    op.execute("DROP FUNCTION is_being_erased(bigint)")
    for name, (table, _) in INDEXES.items():
        op.drop_index(name, table_name=table)
    for table in ("doomed_folder", "redaction", "erased_labeler", "erasure"):
        op.drop_table(table)
    op.drop_constraint(op.f("ck_labeler_has_one_origin"), "labeler", type_="check")
    # Nothing says any more whose the erased were: they become annotators of a file that is no more.
    op.execute("UPDATE labeler SET external_id = 'erased/' || id WHERE erased_at IS NOT NULL")
    op.create_check_constraint(
        op.f("ck_labeler_has_one_origin"), "labeler", "(account_id IS NULL) <> (external_id IS NULL)"
    )
    op.drop_column("labeler", "erased_at")
    op.drop_column("account", "erased_at")
    op.drop_column("membership", "sees_names")
