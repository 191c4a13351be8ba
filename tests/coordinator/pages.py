"""The store's answer to a reader of events, from rows that stand in a list."""

from __future__ import annotations

from collections.abc import Iterable

from coordinator import records
from coordinator.events import PageAsked, PageRead, Stored

NumberedRow = tuple[int, str, bytes]
"""(number, scope, body)"""


def page_of(rows: Iterable[NumberedRow], last: int, asked: PageAsked, most: int) -> PageRead:
    """As `coordinator.store` gives it: `most` rows at most."""
    scopes = None if asked.job is None else records.scopes_about(asked.job)
    found = [
        Stored(number, scope, *_kind_and_body(body))
        for number, scope, body in rows
        if number >= asked.first and (scopes is None or scope in scopes)
    ]
    return PageRead(asked.reader, found[:most], len(found) <= most, last)


def _kind_and_body(body: bytes) -> tuple[str, bytes | None]:
    kind = type(records.decode(body))
    return kind.__name__, None if kind is records.JobSubmitted else body
