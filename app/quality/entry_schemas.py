"""What the API of getting in gives."""

from pydantic import BaseModel


class GuidelinesOut(BaseModel):
    """The newest guidelines. `must_accept`: no slate is given out before."""

    version: int
    markdown: str
    must_accept: bool


class AcceptanceOut(BaseModel):
    """The version that is accepted now."""

    version: int
