"""Pseudo-terminals of shells: no more is read than somebody takes, all of it comes before the end, none stays open."""

from __future__ import annotations

import os
import termios
from contextlib import suppress

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from agentd import terminals
from agentd.events import EndTerminal, OpenTerminal
from agentd.terminals import CREDIT, Terminals
from wire.messages import FromNode, ShellEnded, ShellInput, ShellOutput, ShellSize, ShellTaken, ShellWritten

ENDED = ShellEnded(7, 0)


class Stage:
    """One terminal, with what was sent of it, and the other end as a shell has it."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.sent: list[FromNode] = []
        self.terminals = Terminals(self.sent.append, lambda job, elevated: None)
        opened = self.terminals.open(OpenTerminal(7, "j-1", False, 80, 24), nursery)
        assert opened.device is not None, opened.failure
        self.shell = os.open(opened.device, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)

    async def flood(self) -> None:
        """Write until nobody takes it any more."""
        while self.output < CREDIT:
            self._fill()
            with trio.move_on_after(0.1):  # nobody reads any more, once all that may be is on its way
                await trio.lowlevel.wait_writable(self.shell)
        self._fill()

    def _fill(self) -> None:
        with suppress(BlockingIOError):
            while True:
                os.write(self.shell, b"x" * 4096)

    def leave(self) -> None:
        os.close(self.shell)
        self.terminals.end(EndTerminal(7, ENDED))

    @property
    def output(self) -> int:
        return sum(len(message.content) for message in self.sent if isinstance(message, ShellOutput))


async def test_a_flood_is_read_as_far_as_it_is_taken_and_its_rest_comes_before_the_end() -> None:
    async with trio.open_nursery() as nursery:
        stage = Stage(nursery)
        await stage.flood()
        await wait_all_tasks_blocked()
        assert stage.output == CREDIT
        stage.leave()
        await wait_all_tasks_blocked()
        assert ENDED not in stage.sent
        stage.terminals.hear(ShellTaken(7, 10**9))
    assert CREDIT < stage.output <= 2 * CREDIT
    assert stage.sent[-1] == ENDED


async def test_one_whose_rest_nobody_takes_does_not_stay_open() -> None:
    async with trio.open_nursery() as nursery:
        stage = Stage(nursery)
        await stage.flood()
        stage.leave()
        stage.terminals.end(EndTerminal(7, None))
    assert stage.sent[-1] == ENDED


async def test_one_that_another_process_holds_open_ends_with_its_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminals, "LAST_S", 0.05)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            stage = Stage(nursery)
            os.write(stage.shell, b"bye")
            stage.terminals.end(EndTerminal(7, ENDED))
    assert stage.sent == [ShellOutput(7, b"bye"), ENDED]
    os.close(stage.shell)


async def test_with_the_session_all_go_and_nobody_is_told() -> None:
    async with trio.open_nursery() as nursery:
        stage = Stage(nursery)
        await stage.flood()
        stage.leave()
        stage.terminals.end_all()
    assert ENDED not in stage.sent


async def test_input_and_sizes_are_confirmed_when_the_terminal_has_them() -> None:
    async with trio.open_nursery() as nursery:
        stage = Stage(nursery)
        stage.terminals.hear(ShellInput(7, b"ls\n"))
        stage.terminals.hear(ShellSize(7, 100, 40))
        await wait_all_tasks_blocked()
        assert [message for message in stage.sent if isinstance(message, ShellWritten)] == [
            ShellWritten(7, 0), ShellWritten(7, 3),
        ]  # fmt: skip
        assert os.read(stage.shell, 100) == b"ls\n"
        assert termios.tcgetwinsize(stage.shell) == (40, 100)
        stage.leave()
