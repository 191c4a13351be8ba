"""Ctrl-C counted instead of thrown: the first asks for an orderly end, the second leaves at once."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Final, Protocol, Self

from coordinator.cli.failure import Exit

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class HasFileno(Protocol):
    """Something that can be waited for."""

    def fileno(self) -> int: ...


class Interrupts:
    """While entered, the signals that ask a program to end are counted here and wake `pause`."""

    def __init__(self, parting: str) -> None:
        """`parting` is said when a second one makes the program leave at once."""
        self.count = 0
        self.restore: Callable[[], None] = lambda: None
        """Called before leaving at once: gives the terminal back."""
        self._parting = parting
        self._before: dict[signal.Signals, Any] = {}
        self._wake, self._woken = -1, -1

    def __enter__(self) -> Self:
        self._wake, self._woken = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup asked for SIGHUP to be ignored
                self._before[number] = signal.signal(number, self._interrupted)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        os.close(self._wake)
        os.close(self._woken)

    def fileno(self) -> int:
        """Can be read when one came since the last `pause`."""
        return self._wake

    def pause(self, seconds: float, *others: HasFileno) -> bool:
        """Wait so long, or until the next interrupt, or until one of these can be read. Whether an interrupt came."""
        ready, _, _ = select.select([self, *others], [], [], seconds)
        if self not in ready:
            return False
        os.read(self._wake, 64)
        return True

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count > 1:
            self._leave()
        os.write(self._woken, b".")

    def _leave(self) -> None:
        self.restore()
        with suppress(OSError):  # the terminal may be gone, and the second signal be about that
            os.write(sys.stderr.fileno(), f"{self._parting}\n".encode())
        os._exit(Exit.INTERRUPTED)
