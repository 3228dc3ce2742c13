"""A transaction of the event loop, for what is async and asks the database once."""

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.orm import Session

from app.db import LoopSessionFactory
from app.greenlets import without_a_thread

Answer = TypeVar("Answer")


async def in_transaction(act: Callable[[Session], Answer]) -> Answer:
    """Do it in a transaction of its own: committed at the end, rolled back by an error."""

    def run() -> Answer:
        with LoopSessionFactory.begin() as session:
            return act(session)

    return await without_a_thread(run)()
