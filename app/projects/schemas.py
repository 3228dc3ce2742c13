"""What the API of projects answers."""

from pydantic import BaseModel

from app.people.models import Role


class ProjectOut(BaseModel):
    """A project as one of its members sees it."""

    slug: str
    name: str
    role: Role
    is_paused: bool
    current_version: int | None
