"""How long to wait before the next attempt: exponential, with full jitter that is a hash and no random number."""

from __future__ import annotations

import hashlib

from wire.spec import Backoff

_STEPS = 1 << 53


def delay_s(backoff: Backoff | None, attempt: int, seed: str) -> float:
    """Seconds to wait after attempt `attempt` (counted from 1) has failed: a part, fixed by `seed` and `attempt`, of
    `first_ms * 2**(attempt-1)`, at most of `cap_ms`. 0 without a backoff."""
    if backoff is None:
        return 0.0
    doublings = min(max(attempt, 1) - 1, 62)
    ceiling_ms = min(backoff.cap_ms, backoff.first_ms << doublings)
    return ceiling_ms / 1000 * _part(f"{seed}\0{attempt}")


def _part(seed: str) -> float:
    """A number of [0, 1) that depends on nothing but `seed`."""
    digest = hashlib.sha256(seed.encode("utf-8", "surrogatepass")).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / _STEPS
