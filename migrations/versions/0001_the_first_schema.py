"""The first schema."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


COMPARISON_VIEW = """
CREATE VIEW comparison AS
SELECT ranking.id AS ranking_id,
       better.completion_id AS better_id,
       worse.completion_id AS worse_id,
       -- Llama 2's margins (arXiv:2307.09288, table 27, "small"); null where no strength was asked.
       CASE ranking.strength
           WHEN 'significantly' THEN 1.0
           WHEN 'better' THEN 2.0 / 3.0
           WHEN 'slightly' THEN 1.0 / 3.0
           WHEN 'negligibly' THEN 0.0
       END::double precision AS margin
FROM ranking
JOIN ranking_item AS better ON better.ranking_id = ranking.id
JOIN ranking_item AS worse ON worse.ranking_id = ranking.id AND better.rank < worse.rank
WHERE ranking.counted AND ranking.retracted_at IS NULL
"""

# Labels are append-only: the one change a ranking may ever see is the mark that it was taken back.
APPEND_ONLY = """
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
END $$;

CREATE FUNCTION allow_only_retraction() RETURNS trigger LANGUAGE plpgsql AS $$
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

CREATE TRIGGER only_retraction BEFORE UPDATE ON ranking FOR EACH ROW EXECUTE FUNCTION allow_only_retraction();
"""

APPEND_ONLY_TABLES = {
    "ranking": "DELETE",
    "ranking_item": "UPDATE OR DELETE",
    "retraction": "UPDATE OR DELETE",
    "completion": "DELETE",
    "snapshot": "UPDATE OR DELETE",
    "snapshot_ranking": "UPDATE OR DELETE",
    "audit_event": "UPDATE OR DELETE",
}


def upgrade() -> None:
    op.create_table(
        "account",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("email", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("password_hash", sa.String(), nullable=True),
        sa.Column("is_site_admin", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("email = lower(email)", name=op.f("ck_account_email_is_lower_case")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_account")),
    )
    op.create_index("uq_account_email", "account", ["email"], unique=True)
    op.create_table(
        "device_claim",
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("purpose", sa.String(), nullable=False),
        sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("wanted_by", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("device", name=op.f("pk_device_claim")),
    )
    op.create_table(
        "heartbeat",
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("process", sa.String(), nullable=False),
        sa.Column("beat_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("doing", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("owner", name=op.f("pk_heartbeat")),
    )
    op.create_table(
        "project",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("slug", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("paused_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("seed", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("min_k", sa.BigInteger(), server_default=sa.text("4"), nullable=False),
        sa.Column("max_k", sa.BigInteger(), server_default=sa.text("9"), nullable=False),
        sa.Column("queue_target", sa.BigInteger(), server_default=sa.text("20"), nullable=False),
        sa.Column("overlap", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("lease_duration_s", sa.BigInteger(), server_default=sa.text("1800"), nullable=False),
        sa.Column("max_prompt_tokens", sa.BigInteger(), server_default=sa.text("256"), nullable=False),
        sa.Column("max_completion_tokens", sa.BigInteger(), server_default=sa.text("48"), nullable=False),
        sa.Column(
            "mixture",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text('\'[{"source": "current", "weight": 1.0, "temperature": 1.0, "top_p": 1.0}]\''),
            nullable=False,
        ),
        sa.Column("train_share", sa.Float(), server_default=sa.text("0.65"), nullable=False),
        sa.Column("validation_share", sa.Float(), server_default=sa.text("0.10"), nullable=False),
        sa.Column("demonstrate_share", sa.Float(), server_default=sa.text("0.2"), nullable=False),
        sa.Column("rank_share", sa.Float(), server_default=sa.text("0.4"), nullable=False),
        sa.Column("uses_overlap", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("asks_quality", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("full_form_share", sa.Float(), server_default=sa.text("1.0"), nullable=False),
        sa.Column("flags", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("evaluation_comparisons", sa.BigInteger(), server_default=sa.text("96"), nullable=False),
        sa.Column("promotes_at_lower_bound", sa.Float(), nullable=True),
        sa.CheckConstraint("slug ~ '^[a-z0-9][a-z0-9-]{0,62}$'", name=op.f("ck_project_slug_is_plain")),
        sa.CheckConstraint("4 <= min_k AND min_k <= max_k AND max_k <= 9", name=op.f("ck_project_k_range")),
        sa.CheckConstraint(
            "demonstrate_share >= 0 AND rank_share > 0 AND demonstrate_share + rank_share <= 1",
            name=op.f("ck_project_use_shares"),
        ),
        sa.CheckConstraint("full_form_share BETWEEN 0 AND 1", name=op.f("ck_project_full_form_share")),
        sa.CheckConstraint("max_prompt_tokens > 0 AND max_completion_tokens > 0", name=op.f("ck_project_token_limits")),
        sa.CheckConstraint(
            "queue_target >= 0 AND overlap >= 1 AND lease_duration_s > 0", name=op.f("ck_project_queue")
        ),
        sa.CheckConstraint(
            "train_share > 0 AND validation_share > 0 AND train_share + validation_share < 1",
            name=op.f("ck_project_split_shares"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_project")),
        sa.UniqueConstraint("slug", name=op.f("uq_project_slug")),
    )
    op.create_table(
        "sign_in_attempt",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("email", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sign_in_attempt")),
    )
    op.create_index("ix_sign_in_attempt_at", "sign_in_attempt", ["at"], unique=False)
    op.create_index("ix_sign_in_attempt_email_at", "sign_in_attempt", ["email", "at"], unique=False)
    op.create_table(
        "api_key",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("prefix", sa.String(), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_api_key_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_key")),
        sa.UniqueConstraint("secret_hash", name=op.f("uq_api_key_secret_hash")),
    )
    op.create_table(
        "audit_event",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("account_id", sa.BigInteger(), nullable=True),
        sa.Column("project_id", sa.BigInteger(), nullable=True),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("detail", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_audit_event_account_id")),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_audit_event_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_event")),
    )
    op.create_index("ix_audit_event_project_at", "audit_event", ["project_id", "at"], unique=False)
    op.create_table(
        "dataset_import",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("what", sa.String(), nullable=False),
        sa.Column("format", sa.String(), nullable=False),
        sa.Column("file_name", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("report", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("created_by", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["created_by"], ["account.id"], name=op.f("fk_dataset_import_created_by")),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_dataset_import_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dataset_import")),
    )
    op.create_table(
        "guidelines",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("markdown", sa.String(), nullable=False),
        sa.Column("created_by", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["created_by"], ["account.id"], name=op.f("fk_guidelines_created_by")),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_guidelines_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_guidelines")),
        sa.UniqueConstraint("project_id", "version", name=op.f("uq_guidelines_project_id_version")),
    )
    op.create_table(
        "invitation",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=True),
        sa.Column(
            "role",
            sa.Enum(
                "labeler", "researcher", "admin", name="role", native_enum=False, create_constraint=True, length=24
            ),
            nullable=True,
        ),
        sa.Column("makes_site_admin", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("email", sa.String(), nullable=True),
        sa.Column("created_by", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("accepted_by", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(project_id IS NULL) = (role IS NULL)", name=op.f("ck_invitation_role_is_in_a_project")),
        sa.ForeignKeyConstraint(["accepted_by"], ["account.id"], name=op.f("fk_invitation_accepted_by")),
        sa.ForeignKeyConstraint(["created_by"], ["account.id"], name=op.f("fk_invitation_created_by")),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_invitation_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_invitation")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_invitation_token_hash")),
    )
    op.create_table(
        "labeler",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("account_id", sa.BigInteger(), nullable=True),
        sa.Column("external_id", sa.String(), nullable=True),
        sa.Column("pseudonym", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("(account_id IS NULL) <> (external_id IS NULL)", name=op.f("ck_labeler_has_one_origin")),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_labeler_account_id")),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_labeler_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_labeler")),
        sa.UniqueConstraint("project_id", "account_id", name=op.f("uq_labeler_project_id_account_id")),
        sa.UniqueConstraint("project_id", "external_id", name="uq_labeler_external"),
        sa.UniqueConstraint("project_id", "pseudonym", name="uq_labeler_pseudonym"),
    )
    op.create_table(
        "membership",
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "role",
            sa.Enum(
                "labeler", "researcher", "admin", name="role", native_enum=False, create_constraint=True, length=24
            ),
            nullable=False,
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("paused_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_membership_account_id")),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_membership_project_id")),
        sa.PrimaryKeyConstraint("account_id", "project_id", name=op.f("pk_membership")),
    )
    op.create_index("ix_membership_project", "membership", ["project_id"], unique=False)
    op.create_table(
        "model_request",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=True),
        sa.Column(
            "kind",
            sa.Enum(
                "inspect",
                "count_tokens",
                "sample",
                "score",
                name="kind",
                native_enum=False,
                create_constraint=True,
                length=24,
            ),
            nullable=False,
        ),
        sa.Column("input", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("output", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("deadline", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempt", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("owner", sa.String(), nullable=True),
        sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_model_request_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_request")),
    )
    op.create_index(
        "ix_model_request_open",
        "model_request",
        ["created_at"],
        unique=False,
        postgresql_where=sa.text("answered_at IS NULL"),
    )
    op.create_table(
        "policy_version",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "candidate",
                "current",
                "retired",
                "rejected",
                name="state",
                native_enum=False,
                create_constraint=True,
                length=24,
            ),
            nullable=False,
        ),
        sa.Column("recipe", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("parent_id", sa.BigInteger(), nullable=True),
        sa.Column("stage_id", sa.BigInteger(), nullable=True),
        sa.Column("is_sft", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("num_parameters", sa.BigInteger(), nullable=True),
        sa.Column("context_tokens", sa.BigInteger(), nullable=True),
        sa.Column("tokenizer_sha256", sa.String(), nullable=True),
        sa.Column("manifest_sha256", sa.String(), nullable=True),
        sa.Column("facts", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("promoted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(recipe = 'imported') = (stage_id IS NULL)", name=op.f("ck_policy_version_made_by_a_stage_or_imported")
        ),
        sa.ForeignKeyConstraint(["parent_id"], ["policy_version.id"], name=op.f("fk_policy_version_parent_id")),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_policy_version_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_policy_version")),
        sa.UniqueConstraint("project_id", "number", name=op.f("uq_policy_version_project_id_number")),
    )
    op.create_index(
        "uq_policy_version_one_current",
        "policy_version",
        ["project_id"],
        unique=True,
        postgresql_where=sa.text("state = 'current'"),
    )
    op.create_table(
        "sign_in_session",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("user_agent", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_sign_in_session_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sign_in_session")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_sign_in_session_token_hash")),
    )
    op.create_index("ix_sign_in_session_account", "sign_in_session", ["account_id"], unique=False)
    op.create_table(
        "snapshot",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("filter", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("num_rankings", sa.BigInteger(), nullable=False),
        sa.Column("num_comparisons", sa.BigInteger(), nullable=False),
        sa.Column("counts", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("exporter_version", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["created_by"], ["account.id"], name=op.f("fk_snapshot_created_by")),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_snapshot_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_snapshot")),
        sa.UniqueConstraint("project_id", "name", name=op.f("uq_snapshot_project_id_name")),
    )
    op.create_table(
        "prompt",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("messages", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("text_hash", sa.LargeBinary(), nullable=False),
        sa.Column("group_key", sa.String(), nullable=False),
        sa.Column(
            "split",
            sa.Enum("train", "validation", "test", name="split", native_enum=False, create_constraint=True, length=24),
            nullable=False,
        ),
        sa.Column(
            "use",
            sa.Enum(
                "demonstrate", "rank", "roll_out", name="use", native_enum=False, create_constraint=True, length=24
            ),
            nullable=False,
        ),
        sa.Column(
            "kind",
            sa.Enum(
                "imported",
                "plain",
                "few_shot",
                "user_based",
                "conversation",
                name="kind",
                native_enum=False,
                create_constraint=True,
                length=24,
            ),
            nullable=False,
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("import_id", sa.BigInteger(), nullable=True),
        sa.Column("set_aside_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("set_aside_reason", sa.String(), nullable=True),
        sa.CheckConstraint(
            "(set_aside_at IS NULL) = (set_aside_reason IS NULL)", name=op.f("ck_prompt_set_aside_says_why")
        ),
        sa.CheckConstraint("jsonb_array_length(messages) > 0", name=op.f("ck_prompt_has_messages")),
        sa.ForeignKeyConstraint(["import_id"], ["dataset_import.id"], name=op.f("fk_prompt_import_id")),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_prompt_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prompt")),
        sa.UniqueConstraint("project_id", "text_hash", name=op.f("uq_prompt_project_id_text_hash")),
    )
    op.create_index("ix_prompt_group", "prompt", ["project_id", "group_key"], unique=False)
    op.create_index("ix_prompt_project_split", "prompt", ["project_id", "split", "use"], unique=False)
    op.create_table(
        "round",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "queued",
                "running",
                "awaiting_labels",
                "succeeded",
                "failed",
                "cancelled",
                name="state",
                native_enum=False,
                create_constraint=True,
                length=24,
            ),
            server_default="queued",
            nullable=False,
        ),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("snapshot_id", sa.BigInteger(), nullable=True),
        sa.Column("sft_policy_id", sa.BigInteger(), nullable=False),
        sa.Column("baseline_id", sa.BigInteger(), nullable=False),
        sa.Column("candidate_id", sa.BigInteger(), nullable=True),
        sa.Column("evaluation_comparisons", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("requested_by", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["baseline_id"], ["policy_version.id"], name=op.f("fk_round_baseline_id")),
        sa.ForeignKeyConstraint(["candidate_id"], ["policy_version.id"], name=op.f("fk_round_candidate_id")),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_round_project_id")),
        sa.ForeignKeyConstraint(["requested_by"], ["account.id"], name=op.f("fk_round_requested_by")),
        sa.ForeignKeyConstraint(["sft_policy_id"], ["policy_version.id"], name=op.f("fk_round_sft_policy_id")),
        sa.ForeignKeyConstraint(["snapshot_id"], ["snapshot.id"], name=op.f("fk_round_snapshot_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_round")),
        sa.UniqueConstraint("project_id", "number", name=op.f("uq_round_project_id_number")),
    )
    op.create_index(
        "uq_round_one_active",
        "round",
        ["project_id"],
        unique=True,
        postgresql_where=sa.text("state IN ('queued', 'running', 'awaiting_labels')"),
    )
    op.create_table(
        "demonstration",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("prompt_id", sa.BigInteger(), nullable=False),
        sa.Column("labeler_id", sa.BigInteger(), nullable=True),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("import_id", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["import_id"], ["dataset_import.id"], name=op.f("fk_demonstration_import_id")),
        sa.ForeignKeyConstraint(["labeler_id"], ["labeler.id"], name=op.f("fk_demonstration_labeler_id")),
        sa.ForeignKeyConstraint(["prompt_id"], ["prompt.id"], name=op.f("fk_demonstration_prompt_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_demonstration")),
    )
    op.create_index("ix_demonstration_prompt", "demonstration", ["prompt_id"], unique=False)
    op.create_table(
        "slate",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("prompt_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "kind",
            sa.Enum(
                "training",
                "conversation",
                "pair",
                "evaluation",
                "onboarding",
                "gold",
                "imported",
                name="kind",
                native_enum=False,
                create_constraint=True,
                length=24,
            ),
            nullable=False,
        ),
        sa.Column(
            "state",
            sa.Enum(
                "sampling",
                "ready",
                "done",
                "retired",
                name="state",
                native_enum=False,
                create_constraint=True,
                length=24,
            ),
            nullable=False,
        ),
        sa.Column("k", sa.SmallInteger(), nullable=False),
        sa.Column("overlap", sa.SmallInteger(), nullable=False),
        sa.Column("asks_full_form", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("round_id", sa.BigInteger(), nullable=True),
        sa.Column("import_id", sa.BigInteger(), nullable=True),
        sa.Column("external_id", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("ready_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("done_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("retired_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("free_from", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("attempt", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("owner", sa.String(), nullable=True),
        sa.Column("deadline", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "CASE WHEN kind IN ('training', 'conversation') THEN k BETWEEN 4 AND 9 WHEN kind IN ('pair', 'evaluation') THEN k = 2 ELSE k >= 2 END",
            name=op.f("ck_slate_k_fits_kind"),
        ),
        sa.CheckConstraint(
            "kind <> 'evaluation' OR round_id IS NOT NULL", name=op.f("ck_slate_evaluation_has_a_round")
        ),
        sa.CheckConstraint("overlap >= 1", name=op.f("ck_slate_overlap")),
        sa.ForeignKeyConstraint(["import_id"], ["dataset_import.id"], name=op.f("fk_slate_import_id")),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_slate_project_id")),
        sa.ForeignKeyConstraint(["prompt_id"], ["prompt.id"], name=op.f("fk_slate_prompt_id")),
        sa.ForeignKeyConstraint(["round_id"], ["round.id"], name=op.f("fk_slate_round_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_slate")),
    )
    op.create_index("ix_slate_prompt", "slate", ["prompt_id"], unique=False)
    op.create_index(
        "ix_slate_queue",
        "slate",
        ["project_id", "kind", "free_from"],
        unique=False,
        postgresql_where=sa.text("state = 'ready'"),
    )
    op.create_index(
        "ix_slate_round", "slate", ["round_id"], unique=False, postgresql_where=sa.text("round_id IS NOT NULL")
    )
    op.create_index(
        "ix_slate_sampling",
        "slate",
        ["project_id", "deadline"],
        unique=False,
        postgresql_where=sa.text("state = 'sampling'"),
    )
    op.create_table(
        "stage",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("round_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column(
            "recipe",
            sa.Enum(
                "sft", "reward", "ppo", "evaluate", name="recipe", native_enum=False, create_constraint=True, length=24
            ),
            nullable=False,
        ),
        sa.Column(
            "state",
            sa.Enum(
                "queued",
                "running",
                "succeeded",
                "failed",
                "cancelled",
                name="state",
                native_enum=False,
                create_constraint=True,
                length=24,
            ),
            server_default="queued",
            nullable=False,
        ),
        sa.Column("preset", sa.String(), nullable=False),
        sa.Column("configuration", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("parents", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("versions", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("folder", sa.String(), nullable=True),
        sa.Column("attempt", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("owner", sa.String(), nullable=True),
        sa.Column("deadline", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("result", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("error", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.CheckConstraint("state <> 'failed' OR error IS NOT NULL", name=op.f("ck_stage_failed_says_why")),
        sa.CheckConstraint(
            "state <> 'running' OR (owner IS NOT NULL AND deadline IS NOT NULL)",
            name=op.f("ck_stage_running_is_claimed"),
        ),
        sa.ForeignKeyConstraint(["round_id"], ["round.id"], name=op.f("fk_stage_round_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stage")),
        sa.UniqueConstraint("round_id", "position", name=op.f("uq_stage_round_id_position")),
    )
    op.create_index(
        "ix_stage_queue",
        "stage",
        ["deadline"],
        unique=False,
        postgresql_where=sa.text("state IN ('queued', 'running')"),
    )
    op.create_table(
        "completion",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("slate_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.SmallInteger(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column(
            "source",
            sa.Enum(
                "policy",
                "demonstration",
                "imported",
                name="source",
                native_enum=False,
                create_constraint=True,
                length=24,
            ),
            nullable=False,
        ),
        sa.Column("policy_version_id", sa.BigInteger(), nullable=True),
        sa.Column("demonstration_id", sa.Uuid(), nullable=True),
        sa.Column("seed", sa.BigInteger(), nullable=True),
        sa.Column("temperature", sa.Float(), nullable=True),
        sa.Column("top_p", sa.Float(), nullable=True),
        sa.Column("finish_reason", sa.String(), nullable=True),
        sa.Column("logprob", sa.Float(), nullable=True),
        sa.Column("token_ids", postgresql.ARRAY(sa.BigInteger()), nullable=True),
        sa.Column("tokenizer_sha256", sa.String(), nullable=True),
        sa.Column("external_id", sa.String(), nullable=True),
        sa.Column("facts", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.CheckConstraint("finish_reason IN ('stop', 'length')", name=op.f("ck_completion_finish_reason")),
        sa.CheckConstraint(
            "source <> 'policy' OR (policy_version_id IS NOT NULL AND seed IS NOT NULL AND temperature IS NOT NULL AND top_p IS NOT NULL AND finish_reason IS NOT NULL)",
            name=op.f("ck_completion_sampled_ones_have_provenance"),
        ),
        sa.ForeignKeyConstraint(
            ["demonstration_id"], ["demonstration.id"], name=op.f("fk_completion_demonstration_id")
        ),
        sa.ForeignKeyConstraint(
            ["policy_version_id"], ["policy_version.id"], name=op.f("fk_completion_policy_version_id")
        ),
        sa.ForeignKeyConstraint(["slate_id"], ["slate.id"], name=op.f("fk_completion_slate_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_completion")),
        sa.UniqueConstraint("slate_id", "id", name="uq_completion_slate_and_id"),
        sa.UniqueConstraint("slate_id", "position", name=op.f("uq_completion_slate_id_position")),
    )
    op.create_index("ix_completion_policy_version", "completion", ["policy_version_id"], unique=False)
    op.create_table(
        "draft",
        sa.Column("slate_id", sa.Uuid(), nullable=False),
        sa.Column("labeler_id", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("content", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["labeler_id"], ["labeler.id"], name=op.f("fk_draft_labeler_id")),
        sa.ForeignKeyConstraint(["slate_id"], ["slate.id"], name=op.f("fk_draft_slate_id")),
        sa.PrimaryKeyConstraint("slate_id", "labeler_id", name=op.f("pk_draft")),
    )
    op.create_index("ix_draft_labeler", "draft", ["labeler_id"], unique=False)
    op.create_table(
        "lease",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("slate_id", sa.Uuid(), nullable=False),
        sa.Column("labeler_id", sa.BigInteger(), nullable=False),
        sa.Column("slot", sa.SmallInteger(), nullable=False),
        sa.Column("order_shown", postgresql.ARRAY(sa.Uuid()), nullable=False),
        sa.Column("granted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "end",
            sa.Enum(
                "submitted",
                "skipped",
                "cannot_rank",
                "expired",
                "retired",
                name="end",
                native_enum=False,
                create_constraint=True,
                length=24,
            ),
            nullable=True,
        ),
        sa.Column("reason", sa.String(), nullable=True),
        sa.CheckConstraint('(closed_at IS NULL) = ("end" IS NULL)', name=op.f("ck_lease_closed_says_how")),
        sa.CheckConstraint("slot >= 1", name=op.f("ck_lease_slot")),
        sa.ForeignKeyConstraint(["labeler_id"], ["labeler.id"], name=op.f("fk_lease_labeler_id")),
        sa.ForeignKeyConstraint(["slate_id"], ["slate.id"], name=op.f("fk_lease_slate_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lease")),
    )
    op.create_index(
        "ix_lease_labeler_open",
        "lease",
        ["labeler_id", "granted_at"],
        unique=False,
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_index("ix_lease_slate_labeler", "lease", ["slate_id", "labeler_id"], unique=False)
    op.create_index(
        "uq_lease_open_labeler",
        "lease",
        ["slate_id", "labeler_id"],
        unique=True,
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_index(
        "uq_lease_open_slot", "lease", ["slate_id", "slot"], unique=True, postgresql_where=sa.text("closed_at IS NULL")
    )
    op.create_table(
        "metric",
        sa.Column("stage_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["stage_id"], ["stage.id"], name=op.f("fk_metric_stage_id")),
        sa.PrimaryKeyConstraint("stage_id", "name", "step", name=op.f("pk_metric")),
    )
    op.create_table(
        "reward_model_version",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("stage_id", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("manifest_sha256", sa.String(), nullable=False),
        sa.Column("figures", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_reward_model_version_project_id")),
        sa.ForeignKeyConstraint(["stage_id"], ["stage.id"], name=op.f("fk_reward_model_version_stage_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reward_model_version")),
        sa.UniqueConstraint("project_id", "number", name=op.f("uq_reward_model_version_project_id_number")),
        sa.UniqueConstraint("stage_id", name=op.f("uq_reward_model_version_stage_id")),
    )
    op.create_table(
        "stage_event",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("stage_id", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["stage_id"], ["stage.id"], name=op.f("fk_stage_event_stage_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stage_event")),
    )
    op.create_index("ix_stage_event_stage", "stage_event", ["stage_id", "id"], unique=False)
    op.create_table(
        "stage_sample",
        sa.Column("stage_id", sa.BigInteger(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("prompt", sa.String(), nullable=False),
        sa.Column("completion", sa.String(), nullable=False),
        sa.Column("score", sa.Double(), nullable=True),
        sa.Column("kl", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["stage_id"], ["stage.id"], name=op.f("fk_stage_sample_stage_id")),
        sa.PrimaryKeyConstraint("stage_id", "step", "position", name=op.f("pk_stage_sample")),
    )
    op.create_table(
        "ranking",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.BigInteger(), nullable=False),
        sa.Column("slate_id", sa.Uuid(), nullable=False),
        sa.Column("labeler_id", sa.BigInteger(), nullable=False),
        sa.Column("lease_id", sa.Uuid(), nullable=True),
        sa.Column("slot", sa.SmallInteger(), nullable=True),
        sa.Column("counted", sa.Boolean(), nullable=False),
        sa.Column("order_shown", postgresql.ARRAY(sa.Uuid()), nullable=False),
        sa.Column(
            "strength",
            sa.Enum(
                "significantly",
                "better",
                "slightly",
                "negligibly",
                name="strength",
                native_enum=False,
                create_constraint=True,
                length=24,
            ),
            nullable=True,
        ),
        sa.Column("note", sa.String(), nullable=True),
        sa.Column("active_s", sa.Float(), nullable=True),
        sa.Column("submitted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("retracted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("import_id", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("NOT counted OR slot >= 1", name=op.f("ck_ranking_counted_has_a_slot")),
        sa.CheckConstraint("active_s >= 0", name=op.f("ck_ranking_active_time")),
        sa.ForeignKeyConstraint(["import_id"], ["dataset_import.id"], name=op.f("fk_ranking_import_id")),
        sa.ForeignKeyConstraint(["labeler_id"], ["labeler.id"], name=op.f("fk_ranking_labeler_id")),
        sa.ForeignKeyConstraint(["lease_id"], ["lease.id"], name=op.f("fk_ranking_lease_id")),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_ranking_project_id")),
        sa.ForeignKeyConstraint(["slate_id"], ["slate.id"], name=op.f("fk_ranking_slate_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ranking")),
        sa.UniqueConstraint("lease_id", name=op.f("uq_ranking_lease_id")),
        sa.UniqueConstraint("slate_id", "id", name="uq_ranking_slate_and_id"),
    )
    op.create_index("ix_ranking_labeler_submitted", "ranking", ["labeler_id", "submitted_at"], unique=False)
    op.create_index("ix_ranking_project_submitted", "ranking", ["project_id", "submitted_at"], unique=False)
    op.create_index(
        "uq_ranking_labeler",
        "ranking",
        ["slate_id", "labeler_id"],
        unique=True,
        postgresql_where=sa.text("counted AND retracted_at IS NULL"),
    )
    op.create_index(
        "uq_ranking_slot",
        "ranking",
        ["slate_id", "slot"],
        unique=True,
        postgresql_where=sa.text("counted AND retracted_at IS NULL"),
    )
    op.create_table(
        "ranking_item",
        sa.Column("ranking_id", sa.Uuid(), nullable=False),
        sa.Column("completion_id", sa.Uuid(), nullable=False),
        sa.Column("slate_id", sa.Uuid(), nullable=False),
        sa.Column("rank", sa.SmallInteger(), nullable=False),
        sa.Column("quality", sa.SmallInteger(), nullable=True),
        sa.Column("flags", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("note", sa.String(), nullable=True),
        sa.CheckConstraint("quality BETWEEN 1 AND 7", name=op.f("ck_ranking_item_quality")),
        sa.CheckConstraint("rank >= 1", name=op.f("ck_ranking_item_rank")),
        sa.ForeignKeyConstraint(
            ["slate_id", "completion_id"], ["completion.slate_id", "completion.id"], name="fk_item_completion"
        ),
        sa.ForeignKeyConstraint(["slate_id", "ranking_id"], ["ranking.slate_id", "ranking.id"], name="fk_item_ranking"),
        sa.PrimaryKeyConstraint("ranking_id", "completion_id", name=op.f("pk_ranking_item")),
    )
    op.create_table(
        "retraction",
        sa.Column("ranking_id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("retracted_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_retraction_account_id")),
        sa.ForeignKeyConstraint(["ranking_id"], ["ranking.id"], name=op.f("fk_retraction_ranking_id")),
        sa.PrimaryKeyConstraint("ranking_id", name=op.f("pk_retraction")),
    )
    op.create_table(
        "snapshot_ranking",
        sa.Column("snapshot_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("ranking_id", sa.Uuid(), nullable=False),
        sa.Column("pseudonym", sa.String(), nullable=False),
        sa.Column("weight", sa.Double(), server_default=sa.text("1.0"), nullable=False),
        sa.ForeignKeyConstraint(["ranking_id"], ["ranking.id"], name=op.f("fk_snapshot_ranking_ranking_id")),
        sa.ForeignKeyConstraint(
            ["snapshot_id"],
            ["snapshot.id"],
            name=op.f("fk_snapshot_ranking_snapshot_id"),
            deferrable=True,
            initially="DEFERRED",
        ),
        sa.PrimaryKeyConstraint("snapshot_id", "position", name=op.f("pk_snapshot_ranking")),
        sa.UniqueConstraint("snapshot_id", "ranking_id", name=op.f("uq_snapshot_ranking_snapshot_id_ranking_id")),
    )
    op.create_index("ix_snapshot_ranking_ranking", "snapshot_ranking", ["ranking_id"], unique=False)
    # Policy versions are made by stages, and stages start from policy versions: one of the two references comes last.
    op.create_foreign_key("fk_policy_version_stage_id", "policy_version", "stage", ["stage_id"], ["id"])
    op.execute(COMPARISON_VIEW)
    op.execute(APPEND_ONLY)
    for table, events in APPEND_ONLY_TABLES.items():
        op.execute(
            f"CREATE TRIGGER append_only BEFORE {events} ON {table} FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )


def downgrade() -> None:
    raise RuntimeError("there is nothing before the first schema; drop the database instead")
