"""The coordinator's records on disk: `coordinator.records` over `wire.ledger`, on the writer thread."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from coordinator import records
from coordinator.events import PageAsked, PageRead, Ready, Stored
from coordinator.records import JobSubmitted, Record
from wire.ledger import Batch, Ledger, Row, StoreError
from wire.writer import WriterThread, writer_thread

FILE: Final = "coordinator.sqlite"
_UNREADABLE: Final = "Use the release that wrote it, or move the file away and start without what it held."
_EPOCHS: Final = "epoch"
_EPOCHS_AT_ONCE: Final = 1000


class Store:
    """An open store. All calls run on its writer thread, in order."""

    def __init__(self, writer: WriterThread[Ledger]) -> None:
        self._writer = writer
        self._epochs = range(0)

    async def load(self) -> list[Record]:
        """Every record, oldest first. Raises StoreDamaged, StoreError."""
        return await self._writer.do(lambda ledger: ledger.load_as(records.decode, _UNREADABLE))

    async def commit(self, batches: Sequence[Ready]) -> bool:
        """Make what these want kept durable, in one transaction; True when room is short now.
        Raises StoreFull, StoreError."""
        rows: list[Batch] = [(_rows(batch.records), batch.forget) for batch in batches]
        return await self._writer.do(lambda ledger: ledger.commit_all(rows))

    async def page(self, asked: PageAsked) -> PageRead:
        """The rows that somebody reads events from; never raises."""
        scopes = () if asked.job is None else records.scopes_about(asked.job)
        try:
            page = await self._writer.do(
                lambda ledger: ledger.page(asked.first, scopes, without_body=JobSubmitted.__name__)
            )
        except StoreError as error:
            return PageRead(asked.reader, [], True, 0, f"the events can't be read: {error}")
        rows = [Stored(number, row.scope, row.kind, row.body or None) for number, row in page.rows]
        return PageRead(asked.reader, rows, page.end, page.last)

    async def next_epoch(self) -> int:
        """A number no session ever had. Raises StoreFull, StoreError."""
        if not self._epochs:
            first = await self._writer.do(lambda ledger: ledger.reserve(_EPOCHS, _EPOCHS_AT_ONCE))
            self._epochs = self._epochs or range(first, first + _EPOCHS_AT_ONCE)
        epoch, self._epochs = self._epochs[0], self._epochs[1:]
        return epoch


def _rows(kept: Sequence[Record]) -> list[Row]:
    return [Row(records.scope_of(record), type(record).__name__, records.encode(record)) for record in kept]


@asynccontextmanager
async def open_store(state: Path) -> AsyncIterator[Store]:
    """The store of a state directory. Raises StoreHeld, StoreDamaged, StoreFull, StoreError."""
    path = state / FILE
    async with writer_thread(lambda: Ledger.open(path), Ledger.close) as writer:
        yield Store(writer)
