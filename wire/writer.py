"""One plain thread that owns a blocking thing (a record log) and does one act after the other for a trio program."""

from __future__ import annotations

import queue
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

import outcome
import trio

T = TypeVar("T")
O = TypeVar("O")  # noqa: E741 - "owned"


class WriterThread(Generic[O]):
    """Acts are done in the order they were asked for; an act that has begun is always awaited to its end."""

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._owned: O | None = None
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)

    def _work(self) -> None:
        while (act := self._asked.get()) is not None:
            act()

    async def _ask(self, act: Callable[[], T]) -> T:
        """Do it over there, come back with its value or its exception. Not cancelled: it may be half durable."""
        token = trio.lowlevel.current_trio_token()
        task = trio.lowlevel.current_task()

        def there() -> None:
            result = outcome.capture(act)
            token.run_sync_soon(trio.lowlevel.reschedule, task, result)

        def keep_waiting(_: Any) -> trio.lowlevel.Abort:
            return trio.lowlevel.Abort.FAILED

        self._asked.put(there)
        value: T = await trio.lowlevel.wait_task_rescheduled(keep_waiting)
        return value

    async def do(self, act: Callable[[O], T]) -> T:
        """`act(owned)` on the thread."""
        owned = self._owned
        if owned is None:
            raise RuntimeError("the writer thread owns nothing: use it inside `writer_thread`")
        return await self._ask(lambda: act(owned))

    async def _begin(self, make: Callable[[], O]) -> None:
        self._thread.start()
        self._owned = await self._ask(make)

    async def _end(self, close: Callable[[O], None]) -> None:
        owned, self._owned = self._owned, None
        if owned is not None:
            await self._ask(lambda: close(owned))
        self._asked.put(None)


@asynccontextmanager
async def writer_thread(make: Callable[[], O], close: Callable[[O], None]) -> AsyncIterator[WriterThread[O]]:
    """A thread that made its own thing and closes it at the end."""
    thread: WriterThread[O] = WriterThread()
    try:
        await thread._begin(make)
        yield thread
    finally:
        await thread._end(close)
