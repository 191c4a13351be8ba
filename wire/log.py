"""What a daemon says while it runs: one line an event on stderr, `key=value`, with the time in UTC."""

from __future__ import annotations

import sys
from typing import Any

import structlog


def daemon_log(name: str) -> Any:
    """The log of one daemon. Values are quoted, so nothing that came from outside can forge a line."""
    return structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "daemon", "event"]),
        ],
    ).bind(daemon=name)
