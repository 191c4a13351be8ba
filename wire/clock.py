"""The only reader of clocks: everything else is handed an Instant."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from wire.instant import Instant

BOOT_ID_FILE: Final = Path("/proc/sys/kernel/random/boot_id")


def boot_id(source: Path = BOOT_ID_FILE) -> str:
    """The kernel's name for this boot. Raises OSError when it can't be read."""
    return source.read_text("ascii", "replace").strip()


def processor_time() -> float:
    """Seconds of the processor that this thread has had so far."""
    return time.thread_time()


def boot_clock(boot: str | None = None) -> Callable[[], Instant]:
    """A clock for one process: its boot does not change while it lives. `boot` replaces the kernel's id where a
    node's identity is more than that."""
    name = boot_id() if boot is None else boot

    def now() -> Instant:
        return Instant(name, time.clock_gettime(time.CLOCK_BOOTTIME), time.time())

    return now
