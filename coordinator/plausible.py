"""What nodes say of times, amounts and texts, brought into the range that can be kept and shown: a node whose clock is
broken, or that lies, must not decide what the coordinator stores or whether it can show it."""

from __future__ import annotations

from typing import Final

import msgspec

from wire.bounds import LABEL_NAME, MAX_LABEL_VALUE, MAX_RESOURCES, NAME, is_label_value
from wire.messages import Cleanliness, Join, KeptStream, PhaseEnd, TaskEnd

MAX_WALL: Final = 253_000_000_000.0
"""The year 9987: times later than that have no date."""
MAX_SECONDS: Final = 1e12
MAX_BYTES: Final = (1 << 63) - 1
MAX_NUMBER: Final = (1 << 31) - 1
"""Of an exit code, a signal, a count."""
MAX_REASON: Final = 1_000
MAX_TAIL: Final = 64 * 1024
MAX_KEPT_TAIL: Final = 192 * 1024
MAX_SAID: Final = 64
MAX_WORD: Final = 256
"""Letters of anything that a node says of itself."""
MAX_LISTED: Final = 100
"""Leftovers of each kind."""


def wall(at: float) -> float:
    """A time of day; one that is none is the beginning of all times."""
    return at if 0.0 <= at <= MAX_WALL else 0.0


def too_much(join: Join) -> str | None:
    """Why what a node says of itself can't be kept and listed; None: it can."""
    texts = (join.incarnation, join.boot, join.containment, join.users, join.version, join.life, *join.limits)
    if len(join.labels) > MAX_RESOURCES or len(join.resources) > MAX_RESOURCES or len(join.limits) > MAX_SAID:
        return f"a node has {MAX_RESOURCES} labels and {MAX_RESOURCES} resources at most"
    if any(len(text) > MAX_WORD for text in texts):
        return f"what a node says of itself is {MAX_WORD} letters each at most"
    if not all(NAME.match(name) for name in join.resources):
        return "a node names a resource as no task could: letters, digits and `_`, 48 at most"
    if not all(LABEL_NAME.match(name) and is_label_value(value) for name, value in join.labels.items()):
        return f"a node has a label that nobody could ask for: a name, and {MAX_LABEL_VALUE} printable letters at most"
    return None


def number(value: int) -> int:
    """A code or a count, which is small."""
    return min(max(0, value), MAX_NUMBER)


def task_end(end: TaskEnd) -> TaskEnd:
    """The end of a task as it may be judged."""
    code, by_signal, reason = end.exit_code, end.signal, end.reason
    if (
        0.0 <= end.started_at <= MAX_WALL
        and 0.0 <= end.ended_at <= MAX_WALL
        and 0.0 <= end.cpu_s <= MAX_SECONDS
        and 0 <= end.max_rss_bytes <= MAX_BYTES
        and (code is None or 0 <= code <= MAX_NUMBER)
        and (by_signal is None or 0 <= by_signal <= MAX_NUMBER)
        and (reason is None or len(reason) <= MAX_REASON)
    ):
        return end
    return msgspec.structs.replace(
        end,
        started_at=wall(end.started_at),
        ended_at=wall(end.ended_at),
        cpu_s=end.cpu_s if 0.0 <= end.cpu_s <= MAX_SECONDS else 0.0,
        max_rss_bytes=min(max(0, end.max_rss_bytes), MAX_BYTES),
        exit_code=_number(code),
        signal=_number(by_signal),
        reason=_text(reason),
    )


def kept_stream(stream: KeptStream) -> KeptStream:
    """What of an output may be kept."""
    head, tail = stream.head[:MAX_TAIL], stream.tail[-MAX_KEPT_TAIL:]
    return KeptStream(min(max(stream.size, len(head) + len(tail)), MAX_BYTES >> 1), head, tail)


def phase_end(end: PhaseEnd) -> PhaseEnd:
    """The end of a preparation or release as it may be kept."""
    return msgspec.structs.replace(
        end,
        attempt=number(end.attempt),
        started_at=wall(end.started_at),
        ended_at=wall(end.ended_at),
        exit_code=_number(end.exit_code),
        signal=_number(end.signal),
        reason=_text(end.reason),
        stdout_tail=end.stdout_tail[-MAX_TAIL:],
        stderr_tail=end.stderr_tail[-MAX_TAIL:],
        leftovers=_listed(end.leftovers),
        clean=None if end.clean is None else _clean(end.clean),
        stdout_size=_size(end.stdout_size, end.stdout_tail),
        stderr_size=_size(end.stderr_size, end.stderr_tail),
    )


def _size(said: int | None, tail: bytes) -> int | None:
    return None if said is None else min(max(said, len(tail)), MAX_BYTES >> 1)


def _clean(clean: Cleanliness) -> Cleanliness:
    return msgspec.structs.replace(
        clean,
        processes=number(clean.processes),
        files=_listed(clean.files),
        uid=None if clean.uid is None else min(max(0, clean.uid), 2 * MAX_NUMBER + 1),
        cgroups=_listed(clean.cgroups),
        mounts=_listed(clean.mounts),
    )


def _number(value: int | None) -> int | None:
    return None if value is None else number(value)


def _text(text: str | None) -> str | None:
    return None if text is None else text[:MAX_REASON]


def _listed(texts: list[str]) -> list[str]:
    return [text[:MAX_REASON] for text in texts[:MAX_LISTED]]
