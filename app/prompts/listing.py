"""The project's prompts as the page and the API list them: filtered, the newest first, a page at a time."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, field_validator
from sqlalchemy import ColumnElement, column, exists, func, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from app.projects.models import Project
from app.prompts.models import Prompt, PromptKind, Split, Use


class PromptFilter(BaseModel):
    """Which prompts to list; what is left out or empty allows all."""

    model_config = ConfigDict(frozen=True)

    split: Split | None = None
    use: Use | None = None
    kind: PromptKind | None = None
    is_set_aside: bool | None = None
    words: str = ""  # anywhere in its turns, whatever the case

    @property
    def is_choice(self) -> bool:
        """Whether anything is left out."""
        return any(getattr(self, name) not in (None, "") for name in PromptFilter.model_fields)

    @field_validator("split", "use", "kind", "is_set_aside", mode="before")
    @classmethod
    def nothing_chosen(cls, value: object) -> object:
        return None if value == "" else value


def matching(project: Project, filter: PromptFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [Prompt.project_id == project.id]
    if filter.split is not None:
        conditions.append(Prompt.split == filter.split)
    if filter.use is not None:
        conditions.append(Prompt.use == filter.use)
    if filter.kind is not None:
        conditions.append(Prompt.kind == filter.kind)
    if filter.is_set_aside is not None:
        is_sampled = Prompt.set_aside_at.is_(None)
        conditions.append(~is_sampled if filter.is_set_aside else is_sampled)
    if filter.words.strip():
        turn = func.jsonb_array_elements(Prompt.messages).table_valued(column("value", JSONB), name="turn")
        content = turn.c.value["content"].astext
        conditions.append(exists().where(content.icontains(filter.words.strip(), autoescape=True)))
    return conditions


def list_prompts(
    session: Session, project: Project, filter: PromptFilter, *, before: int | None = None, limit: int = 50
) -> Sequence[Prompt]:
    """The newest that match. before: the last id of the page that came before this one."""
    query = select(Prompt).where(*matching(project, filter)).order_by(Prompt.id.desc()).limit(limit)
    if before is not None:
        query = query.where(Prompt.id < before)
    return session.scalars(query).all()


def count_prompts(session: Session, project: Project, filter: PromptFilter) -> int:
    return session.scalars(select(func.count()).select_from(Prompt).where(*matching(project, filter))).one()


def count_by_split(session: Session, project: Project) -> dict[Split, int]:
    query = select(Prompt.split, func.count()).where(Prompt.project_id == project.id).group_by(Prompt.split)
    counts = dict(session.execute(query).all())
    return {split: counts.get(split, 0) for split in Split}
