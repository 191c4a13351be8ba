"""The node's records on disk: `agentd.records` over `wire.ledger`, on the writer thread."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from agentd import records
from agentd.events import Ready
from agentd.records import Record
from wire.ledger import INSIDE_BYTES, Batch, Ledger, Row
from wire.writer import WriterThread, writer_thread

FILE: Final = "journal.sqlite"
_UNREADABLE: Final = "Use the release that wrote it, or give the agent a new --root."


class Journal:
    """An open journal. All calls run on its writer thread, in order."""

    def __init__(self, writer: WriterThread[Ledger]) -> None:
        self._writer = writer

    async def load(self) -> list[Record]:
        """Every record, oldest first. Raises StoreDamaged, StoreError."""
        return await self._writer.do(lambda ledger: ledger.load_as(records.decode, _UNREADABLE))

    async def commit(self, batches: Sequence[Ready]) -> bool:
        """Make what these want kept durable, in one transaction; True when room is short now.
        Raises StoreFull, StoreError."""
        wanted: list[Batch] = [(_rows(batch.records), batch.forget) for batch in batches]
        return await self._writer.do(lambda ledger: ledger.commit_all(wanted))


def _rows(kept: Sequence[Record]) -> list[Row]:
    return [Row(records.scope_of(record), type(record).__name__, records.encode(record)) for record in kept]


@asynccontextmanager
async def open_journal(directory: Path, among_jobs: bool = True) -> AsyncIterator[Journal]:
    """The journal below the agent's own directory; `among_jobs`: on a disk that strangers' jobs may keep full. Raises
    StoreHeld, StoreDamaged, StoreFull, StoreError."""
    path = directory / FILE
    inside = INSIDE_BYTES if among_jobs else 0
    async with writer_thread(lambda: Ledger.open(path, inside_bytes=inside), Ledger.close) as writer:
        yield Journal(writer)
