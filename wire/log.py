"""What a daemon says while it runs: one line an event on stderr, `key=value`, with the time in UTC."""

from __future__ import annotations

import sys
from collections.abc import Callable, MutableMapping
from typing import Any, Final

import structlog

from wire.instant import Instant

BURST: Final = 50
"""Lines at once of what anybody can cause."""
REFILL_S: Final = 2.0
"""For one more."""


def _written_out(log: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {name: printable(value) if isinstance(value, str) else value for name, value in event.items()}


def printable(text: str) -> str:
    """The text with every character that is not to be seen written as its escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def daemon_log(name: str) -> Any:
    """The log of one daemon. Values are quoted and their control characters written out, so nothing that came from
    outside can forge a line, or steer the terminal that shows it."""
    return structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            _written_out,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "daemon", "event"]),
        ],
    ).bind(daemon=name)


class Sparing:
    """Warnings of what strangers cause: some at once, then few, with the number of those left out, so that nobody can
    fill the disk with them."""

    def __init__(self, log: Any, clock: Callable[[], Instant]) -> None:
        self._log = log
        self._clock = clock
        self._left = float(BURST)
        self._since = clock()
        self._skipped = 0

    def warning(self, event: str, **fields: Any) -> None:
        now = self._clock()
        self._left = min(BURST, self._left + self._since.seconds_until(now) / REFILL_S)
        self._since = now
        if self._left < 1:
            self._skipped += 1
            return
        if self._skipped:
            fields["left_out_before"] = self._skipped
        self._left -= 1
        self._skipped = 0
        self._log.warning(event, **fields)
