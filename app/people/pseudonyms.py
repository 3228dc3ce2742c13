"""Names for labelers that say nothing about them."""

import secrets


def new_pseudonym() -> str:
    """Random, never derived from a name: one person's pseudonyms in two projects cannot be linked."""
    return f"labeler-{secrets.token_hex(4)}"
