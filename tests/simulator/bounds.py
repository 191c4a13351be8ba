"""I19: what one connection makes the coordinator's core remember is bounded by constants, whatever it says."""

from __future__ import annotations

from collections import Counter
from typing import Final

from coordinator import files, joining, requests
from coordinator.core import Core
from coordinator.sessions import Session
from tests.simulator.invariants import require

WAITER_BYTES: Final = 64 * 1024
"""What one waiting request names, at most."""
JOIN_BYTES: Final = 64 * 1024
"""What a node says of itself."""
HOLDING_BYTES: Final = joining.MAX_HELD * 512
"""What an inventory leaves while it is taken."""


def check(core: Core) -> None:
    """Every bound of every session."""
    waits = Counter(waiter.session for waiter in core.waiters)
    for session, count in waits.items():
        require(count <= requests.MAX_WAITS, "I19", f"session {session} has {count} requests waiting")
    for waiter in core.waiters:
        size = sum(map(len, waiter.jobs)) + len(waiter.job)
        require(size <= WAITER_BYTES, "I19", f"a request of session {waiter.session} keeps {size} bytes")
    relays = Counter(relay.session for relay in core.relays.values())
    for session, count in relays.items():
        require(count <= files.MAX_RELAYS_EACH, "I19", f"session {session} has {count} reads under way")
    require(len(core.relays) <= files.MAX_RELAYS, "I19", f"{len(core.relays)} reads are under way")
    gone = [session for session in waits | relays if session not in core.sessions]
    require(not gone, "I19", f"sessions {gone} are over and still remembered")
    for session in core.sessions.values():
        require(size_of(session) <= JOIN_BYTES + HOLDING_BYTES, "I19", f"session {session.epoch} is {size_of(session)}")


def size_of(session: Session) -> int:
    """Bytes that a node's session makes its node remember, about."""
    node = session.node
    if node is None or node.session != session.epoch:
        return 0
    size = len(repr(node.join))
    if node.holding is not None:
        size += sum(len(job) + 64 for job, _ in node.holding.rounds)
        size += sum(mask.bit_length() // 8 + 64 for mask in node.holding.grants.values())
    return size
