"""The pseudo-terminals of shells: made for the job's user, read as far as somebody takes what is read."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from collections.abc import Callable
from typing import Final

import trio

from agentd.events import EndTerminal, OpenTerminal, TerminalOpened
from wire.bounds import MAX_TERMINAL
from wire.messages import FromNode, ShellEnded, ShellInput, ShellOutput, ShellSize, ShellTaken, ShellWritten

CREDIT: Final = 64 * 1024
"""Bytes that may be on their way to whoever looks."""
PIECE: Final = 16 * 1024
LAST_S: Final = 30.0
"""For the rest of what a shell wrote to be taken when it is over: another process of the job may hold its terminal
open, or write to it for ever."""
MAX_INPUT: Final = 64 * 1024
"""Bytes that wait for a shell that does not read; what is beyond is dropped."""


class Terminal:
    """Our end of one, and the other as long as nobody else may have it open. Invariant: both are closed once."""

    def __init__(self, ours: int, theirs: int, columns: int, rows: int) -> None:
        self.ours, self.theirs = ours, theirs
        self.credit = CREDIT
        self.taken = trio.Event()
        self.written = trio.Event()
        self.over = trio.Event()
        self.input = bytearray()
        self.scope = trio.CancelScope()
        self.resize(columns, rows)

    def resize(self, columns: int, rows: int) -> None:
        size = struct.pack("HHHH", *(max(1, min(each, MAX_TERMINAL)) for each in (rows, columns)), 0, 0)
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, size)

    def release(self) -> None:
        """The shell is over: what it wrote can be read to its end."""
        self.over.set()
        if self.theirs >= 0:
            os.close(self.theirs)
            self.theirs = -1

    def close(self) -> None:
        self.release()
        trio.lowlevel.notify_closing(self.ours)
        os.close(self.ours)


class Terminals:
    """All terminals of this agent. `send` is to the coordinator, if it listens."""

    def __init__(self, send: Callable[[FromNode], None], user_of: Callable[[str, bool], int | None]) -> None:
        """`user_of(job, elevated)`: whose the terminal will be; None: ours."""
        self._send = send
        self._user_of = user_of
        self._open: dict[int, Terminal] = {}
        self._ended: dict[int, ShellEnded] = {}

    def open(self, order: OpenTerminal, nursery: trio.Nursery) -> TerminalOpened:
        """Make one; what is written to it is sent from now on."""
        try:
            ours, theirs = os.openpty()
        except OSError as error:
            return TerminalOpened(order.shell, None, f"no terminal could be opened: {error.strerror}")
        try:
            user = self._user_of(order.job, order.elevated)
            if user is not None:
                os.fchown(theirs, user, -1)
            os.fchmod(theirs, 0o600)
            os.set_blocking(ours, False)
            device = os.ttyname(theirs)
            terminal = Terminal(ours, theirs, order.columns, order.rows)
        except OSError as error:
            os.close(ours)
            os.close(theirs)
            return TerminalOpened(order.shell, None, f"no terminal could be made for it: {error.strerror}")
        self._open[order.shell] = terminal
        nursery.start_soon(self._serve, order.shell, terminal)
        return TerminalOpened(order.shell, device)

    async def _serve(self, shell: int, terminal: Terminal) -> None:
        try:
            with terminal.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write, shell, terminal)
                    nursery.start_soon(self._limit, terminal)
                    await self._read(shell, terminal)
                    nursery.cancel_scope.cancel()
        finally:
            del self._open[shell]
            terminal.close()
            if (ended := self._ended.pop(shell, None)) is not None:
                self._send(ended)

    @staticmethod
    async def _limit(terminal: Terminal) -> None:
        await terminal.over.wait()
        await trio.sleep(LAST_S)
        terminal.scope.cancel()

    async def _read(self, shell: int, terminal: Terminal) -> None:
        """Until nobody has the other end open."""
        while True:
            while terminal.credit <= 0:
                await terminal.taken.wait()
                terminal.taken = trio.Event()
            try:
                content = os.read(terminal.ours, min(PIECE, terminal.credit))
            except BlockingIOError:
                await trio.lowlevel.wait_readable(terminal.ours)
                continue
            except OSError:  # EIO: the other end is closed
                return
            if not content:
                return
            terminal.credit -= len(content)
            self._send(ShellOutput(shell, content))

    async def _write(self, shell: int, terminal: Terminal) -> None:
        while True:
            while not terminal.input:
                await terminal.written.wait()
                terminal.written = trio.Event()
            try:
                written = os.write(terminal.ours, terminal.input[:PIECE])
                del terminal.input[:written]
                self._send(ShellWritten(shell, written))
            except BlockingIOError:
                await trio.lowlevel.wait_writable(terminal.ours)
            except OSError:
                return

    def hear(self, message: ShellInput | ShellSize | ShellTaken) -> None:
        """What whoever looks at it does; nothing, when it is over."""
        terminal = self._open.get(message.shell)
        if terminal is None:
            return
        match message:
            case ShellInput(_, content):
                terminal.input += content[: MAX_INPUT - len(terminal.input)]
                terminal.written.set()
            case ShellSize(_, columns, rows):
                terminal.resize(columns, rows)
                self._send(ShellWritten(message.shell, 0))
            case ShellTaken(_, count):
                terminal.credit = min(CREDIT, terminal.credit + max(0, count))
                terminal.taken.set()

    def end_all(self) -> None:
        """Nobody listens any more, not even to what is left of those that are over."""
        self._ended.clear()
        for terminal in self._open.values():
            terminal.scope.cancel()

    def end(self, order: EndTerminal) -> None:
        """The shell is over. What it still wrote comes before that is said; nothing, when nobody listens."""
        terminal = self._open.get(order.shell)
        if terminal is None:
            if order.said is not None:
                self._send(order.said)
            return
        if order.said is None:
            terminal.scope.cancel()
            return
        self._ended[order.shell] = order.said
        terminal.release()
