"""Access: single sign-on, links that reset a password, keys that expire, and an audit log that stays quick to read."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

WHEN = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("api_key", sa.Column("expires_at", WHEN, nullable=True))
    op.create_table(
        "password_reset",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.BigInteger(), nullable=True),
        sa.Column("created_at", WHEN, server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", WHEN, nullable=False),
        sa.Column("used_at", WHEN, nullable=True),
        sa.Column("revoked_at", WHEN, nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_password_reset_account_id")),
        sa.ForeignKeyConstraint(["created_by"], ["account.id"], name=op.f("fk_password_reset_created_by")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_password_reset")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_password_reset_token_hash")),
    )
    op.create_index("ix_password_reset_account", "password_reset", ["account_id"])
    op.create_table(
        "sign_on_identity",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("issuer", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("email", sa.String(), nullable=True),
        sa.Column("created_at", WHEN, server_default=sa.text("now()"), nullable=False),
        sa.Column("last_used_at", WHEN, server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_sign_on_identity_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sign_on_identity")),
        sa.UniqueConstraint("issuer", "subject", name=op.f("uq_sign_on_identity_issuer_subject")),
        sa.UniqueConstraint("account_id", "issuer", name=op.f("uq_sign_on_identity_account_id_issuer")),
    )
    op.create_table(
        "sign_on_ticket",
        sa.Column("state_hash", sa.LargeBinary(), nullable=False),
        sa.Column("browser_hash", sa.LargeBinary(), nullable=False),
        sa.Column("nonce", sa.String(), nullable=False),
        sa.Column("code_verifier", sa.String(), nullable=False),
        sa.Column("next", sa.String(), nullable=False),
        sa.Column("place", sa.String(), nullable=False),
        sa.Column("created_at", WHEN, nullable=False),
        sa.Column("used_at", WHEN, nullable=True),
        sa.PrimaryKeyConstraint("state_hash", name=op.f("pk_sign_on_ticket")),
    )
    op.create_index("ix_sign_on_ticket_place", "sign_on_ticket", ["place", "created_at"])
    op.create_index("ix_sign_on_ticket_created", "sign_on_ticket", ["created_at"])
    op.drop_index("ix_audit_event_project_at", table_name="audit_event")
    op.create_index("ix_audit_event_at", "audit_event", ["at", "id"])
    op.create_index("ix_audit_event_project_at", "audit_event", ["project_id", "at", "id"])
    op.create_index("ix_audit_event_action_at", "audit_event", ["action", "at", "id"])
    op.create_index("ix_audit_event_account_at", "audit_event", ["account_id", "at", "id"])
    op.create_index("ix_audit_event_project_action", "audit_event", ["project_id", "action", "at", "id"])


def downgrade() -> None:
    for name in ("project_action", "account_at", "action_at", "project_at", "at"):
        op.drop_index(f"ix_audit_event_{name}", table_name="audit_event")
    op.create_index("ix_audit_event_project_at", "audit_event", ["project_id", "at"])
    op.drop_table("sign_on_ticket")
    op.drop_table("sign_on_identity")
    op.drop_table("password_reset")
    op.drop_column("api_key", "expires_at")
