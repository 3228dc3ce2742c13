"""Signatures by which a receiver knows that a notification is ours. Pure.

Standard Webhooks 1.0.0 (https://www.standardwebhooks.com): HMAC-SHA256 over `id.timestamp.body`, in three headers. Its
libraries verify it in most languages.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from uuid import UUID

PREFIX = "whsec_"
SECRET_BYTES = 32  # the spec asks for 24 to 64


def new_secret() -> bytes:
    return secrets.token_bytes(SECRET_BYTES)


def secret_text(secret: bytes) -> str:
    """The secret as receivers are given it."""
    return PREFIX + base64.b64encode(secret).decode()


def message_id(notification_id: UUID) -> str:
    """The same for every attempt, so that a receiver can tell a notification it has seen."""
    return f"msg_{notification_id.hex}"


def signed_headers(secrets: Sequence[bytes], id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of one attempt. secrets: while one is being replaced, the new one and the old one both sign.

    timestamp: of this attempt, in seconds since 1970; receivers refuse what is minutes old.
    """
    content = f"{id}.{timestamp}.".encode() + body
    digests = (hmac.new(secret, content, hashlib.sha256).digest() for secret in secrets)
    signatures = " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)
    return {"webhook-id": id, "webhook-timestamp": str(timestamp), "webhook-signature": signatures}
