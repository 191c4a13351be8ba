"""All that a node holds, told in pieces that fit a frame."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from agentd.model import Grant, Ledger
from wire.messages import GrantHeld, Inventory, RoundHeld, StartHeld

PIECE: Final = 2000
"""Rounds, or grants and spans, in one piece."""


def inventory(ledger: Ledger) -> Iterator[Inventory]:
    """The pieces, the last one marked."""
    rounds = [
        RoundHeld(held.job, held.number, held.state)
        for job in ledger.jobs.values()
        for held in job.rounds.values()
        if not held.is_start
    ]
    for first in range(0, len(rounds) - PIECE, PIECE):
        yield Inventory(rounds[first : first + PIECE], [], False)
    last_rounds = rounds[(len(rounds) - 1) // PIECE * PIECE :] if rounds else []
    grants: list[GrantHeld] = []
    size = 0
    for grant in ledger.grants.values():
        held = GrantHeld(grant.grant, open_spans(grant))
        if grants and size + len(held.spans) >= PIECE:
            yield Inventory([], grants, False)
            grants, size = [], 0
        grants.append(held)
        size += 1 + len(held.spans)
    yield Inventory(last_rounds, grants, True, _start(ledger))


def _start(ledger: Ledger) -> StartHeld | None:
    held = ledger.start
    return None if held is None else StartHeld(held.number, ledger.jobs[held.job].digest, held.state)


def open_spans(grant: Grant) -> list[tuple[int, int]]:
    """What of a grant is still to end, in runs."""
    spans: list[tuple[int, int]] = []
    start = grant.open.find(1)
    while start >= 0:
        end = grant.open.find(0, start)
        end = grant.count if end < 0 else end
        spans.append((start, end - start))
        start = grant.open.find(1, end) if end < grant.count else -1
    return spans
