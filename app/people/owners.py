"""Whose leases, rankings and writings a request may reach: every look-up of one asks here. Knows no request."""

from dataclasses import dataclass

from sqlalchemy import BigInteger, ColumnElement, bindparam

from app.db import table_of
from app.people.models import Labeler

_labeler = table_of(Labeler)


@dataclass(frozen=True)
class Owner:
    """An account as the labeler that it is in one project, or in each of its own.

    project_id: the one that the address names, or that the key is for; None: each.
    """

    account_id: int
    project_id: int | None

    def is_labeler(self) -> ColumnElement[bool]:
        """Whether the row of Labeler, which the statement joins, is theirs."""
        is_theirs = _labeler.c.account_id == self.account_id
        return is_theirs if self.project_id is None else is_theirs & (_labeler.c.project_id == self.project_id)

    def bound(self) -> dict[str, int | None]:
        """What OF_OWNER is bound to."""
        return {"of_account": self.account_id, "of_project": self.project_id}


_of_project = bindparam("of_project", type_=BigInteger)
# The same in a statement that is put together once, for whoever is bound.
OF_OWNER: ColumnElement[bool] = (_labeler.c.account_id == bindparam("of_account", type_=BigInteger)) & (
    _of_project.is_(None) | (_labeler.c.project_id == _of_project)
)
