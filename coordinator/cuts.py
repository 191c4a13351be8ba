"""Which tasks of a group something happened to at once, however many runs of them there are: small in a row of the log,
and readable from any task on.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

Cut = list[tuple[int, int]] | bytes
"""Runs (first, count); where they are more than MAX_RUNS a byte for each task of the group, 1 or 0, compressed."""

MAX_RUNS: Final = 1_000
_RUN: Final = re.compile(b"\x01+")


def cut_of(states: bytes | bytearray, state: int) -> Cut:
    """The tasks whose byte is `state`."""
    found = re.finditer(re.escape(b"%c" % state) + b"+", states)
    runs = [(run.start(), run.end() - run.start()) for run in islice(found, MAX_RUNS + 1)]
    if len(runs) <= MAX_RUNS:
        return runs
    chosen = bytes(byte == state for byte in range(256))
    return zlib.compress(states.translate(chosen), 1)


def runs_of(cut: Cut | Iterable[tuple[int, int]], start: int = 0) -> Iterator[tuple[int, int]]:
    """The runs (first, count) of the tasks from `start` on."""
    if isinstance(cut, bytes):
        for run in _RUN.finditer(zlib.decompress(cut), max(0, start)):
            yield run.start(), run.end() - run.start()
        return
    for first, count in cut:
        skipped = min(count, max(0, start - first))
        if skipped < count:
            yield first + skipped, count - skipped
