"""Counts tokens as the current policy reads them, without opening the policy: its tokenizer is one file."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from sqlalchemy.orm import Session
from tokenizers import Tokenizer

from app.policies.service import current_version, policy_path
from app.projects.models import Project
from app.settings import Settings

CountTokens = Callable[[str], int]


def token_counter(session: Session, settings: Settings, project: Project) -> CountTokens | None:
    """What counts a text's tokens; None where the policy's tokenizer is not on this machine (a hub's name)."""
    path = Path(policy_path(settings, current_version(session, project))) / "tokenizer.json"
    tokenizer = _open(path) if path.is_file() else None
    if tokenizer is None:
        return None
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


@lru_cache(maxsize=4)
def _open(path: Path) -> Tokenizer:
    """A policy version's files never change, so the path is their name."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()  # a count is of the whole text
    return tokenizer
