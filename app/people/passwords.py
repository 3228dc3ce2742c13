"""Passwords and tokens: what is shown to a person once, and what the database keeps of it."""

import hashlib
import secrets
from functools import lru_cache
from threading import BoundedSemaphore

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from app.people.errors import WeakPassword

SHORTEST, LONGEST = 12, 1024  # characters
_hasher = PasswordHasher()  # argon2id, RFC 9106's second recommendation: 64 MiB, 3 passes
_turns = BoundedSemaphore(4)  # each hash takes 64 MiB: a burst of sign-ins must not take the machine's memory


def hash_password(password: str) -> str:
    """The argon2id hash to store."""
    with _turns:
        return _hasher.hash(password)


def is_password(password_hash: str | None, password: str) -> bool:
    """Whether the password is the hashed one. Takes as long when there is no hash: accounts cannot be probed."""
    with _turns:
        try:
            return _hasher.verify(password_hash or _decoy(), password) and password_hash is not None
        except (VerificationError, InvalidHashError):
            return False


def needs_rehash(password_hash: str) -> bool:
    """Whether the hash was made with other parameters than today's."""
    return _hasher.check_needs_rehash(password_hash)


def check_password(password: str, email: str) -> None:
    """Length is what counts (NIST SP 800-63B); no rules about kinds of characters.  Raises WeakPassword."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise WeakPassword(f"Choose a password of {SHORTEST} to {LONGEST} characters; a few words together are good.")
    if password.lower() in {email, email.partition("@")[0]} or len(set(password)) < 4:
        raise WeakPassword("Choose a password that is not your address and not one letter again and again.")


def new_token() -> str:
    """256 random bits, fit for an address or a cookie."""
    return secrets.token_urlsafe(32)


def token_hash(token: str) -> bytes:
    """What the database keeps of a token. Tokens are random, so a fast hash is enough."""
    return hashlib.sha256(token.encode(errors="replace")).digest()


@lru_cache(maxsize=1)
def _decoy() -> str:
    return _hasher.hash(secrets.token_urlsafe(16))
