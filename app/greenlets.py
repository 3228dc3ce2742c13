"""Lets an endpoint that waits for the database run in the event loop, written as if it waited in a thread.

A thread for each request costs more than the request, and threads that take turns cost more again. In a greenlet the
same code gives way to other requests at each statement (SQLAlchemy's asyncio extension does the switching).
"""

import functools
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from sqlalchemy.util import greenlet_spawn

from app.db import LoopSessionFactory, turn

Given = ParamSpec("Given")
Answer = TypeVar("Answer")


def without_a_thread(endpoint: Callable[Given, Answer]) -> Callable[Given, Awaitable[Answer]]:
    """The endpoint as a coroutine. It may reach the database through LoopSessionFactory alone, and never sleeps."""

    @functools.wraps(endpoint)
    async def run(*args: Given.args, **kwargs: Given.kwargs) -> Answer:
        async with turn(LoopSessionFactory):
            answer: Answer = await greenlet_spawn(functools.partial(endpoint, *args, **kwargs))
        return answer

    return run
