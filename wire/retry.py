"""How long to wait before the next attempt: exponential, with full jitter that is a hash and no random number."""

from __future__ import annotations

import hashlib
from typing import Final

from wire.messages import Outcome
from wire.spec import Backoff

UNSAID: Final = Backoff(1_000, 60_000)
"""Of what no file gives a backoff and what can't be left to go round and round: at least half of each step."""
AT_ONCE: Final = 10
"""Retries of a command that has them without limit before it waits like that; files that did not come have none."""
_STEPS: Final = 1 << 53


def wait_s(said: Backoff | None, outcome: Outcome, spent: int, limit: int | None, seed: str) -> float:
    """Seconds until what ended like this is tried again, after `spent` retries of `limit` (None: without limit). The
    backoff that a file says holds; where it says none, retries that could go on for ever come slower and slower."""
    if said is not None:
        return delay_s(said, spent + 1, seed)
    at_once = 0 if outcome is Outcome.INPUT_FAILED else AT_ONCE
    if at_once and limit is not None:
        return 0.0
    return _floor_s(spent + 1 - at_once, seed)


def _floor_s(attempt: int, seed: str) -> float:
    if attempt < 1:
        return 0.0
    return (_ceiling_s(UNSAID, attempt) + delay_s(UNSAID, attempt, seed)) / 2


def delay_s(backoff: Backoff | None, attempt: int, seed: str) -> float:
    """Seconds to wait after attempt `attempt` (counted from 1) has failed: a part, fixed by `seed` and `attempt`, of
    `first_ms * 2**(attempt-1)`, at most of `cap_ms`. 0 without a backoff."""
    if backoff is None:
        return 0.0
    return _ceiling_s(backoff, attempt) * _part(f"{seed}\0{attempt}")


def _ceiling_s(backoff: Backoff, attempt: int) -> float:
    doublings = min(max(attempt, 1) - 1, 62)
    return min(backoff.cap_ms, backoff.first_ms << doublings) / 1000


def _part(seed: str) -> float:
    """A number of [0, 1) that depends on nothing but `seed`."""
    digest = hashlib.sha256(seed.encode("utf-8", "surrogatepass")).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / _STEPS
