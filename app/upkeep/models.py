"""What an installation keeps about its own schema."""

from sqlalchemy import CheckConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base


class SchemaServes(Base):
    """The least schema whose programs the database's present schema serves: one row, written by app.migrate."""

    __tablename__ = "schema_serves"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    least: Mapped[str]

    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)
