"""`coordinator shell` without a node: what is typed to leave it, what it ends with, and when its terminal goes."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from coordinator.cli.failure import Exit, Failure
from coordinator.cli.shell import Escapes, _status, _whose
from tests.e2e.test_shell import PATIENCE_S, Typist
from tests.wire.test_thin import coordinator
from wire import messages as m


@pytest.mark.parametrize(
    ("typed", "kept", "left"),
    [
        ([b"~."], b"", True),
        ([b"ls\r~.x"], b"ls\r", True),
        ([b"ls\r~", b"."], b"ls\r", True),
        ([b"ls ~.\r"], b"ls ~.\r", False),
        ([b"~~."], b"~.", False),
        ([b"~", b"~"], b"~", False),
        ([b"~/x\r"], b"~/x\r", False),
        ([b"~\r~."], b"~\r", True),
        ([b"\n\n~."], b"\n\n", True),
    ],
)
def test_a_tilde_and_a_dot_leave_at_the_beginning_of_a_line_only(typed: list[bytes], kept: bytes, left: bool) -> None:
    escapes = Escapes()
    found = [escapes.take(piece) for piece in typed]
    assert (b"".join(content for content, _ in found), found[-1][1]) == (kept, left)


def test_the_status_is_the_shells_and_that_of_a_signal_as_shells_count() -> None:
    over = {"exit_code": None, "signal": None, "reason": None}
    assert [_status(None), _status({**over, "exit_code": 7}), _status({**over, "signal": 9})] == [0, 7, 137]
    with pytest.raises(Failure, match="nothing was typed for 3600 s") as caught:
        _status({**over, "reason": "nothing was typed for 3600 s"})
    assert caught.value.exit is Exit.FAILED


@pytest.mark.parametrize(
    ("whose", "node", "phase"),
    [("j-1/t", "n", None), ("j-1/t", None, "prep"), ("j-1", "n", None), ("j-1", None, "prep")],
)
def test_where_it_is_to_be_is_said_in_one_way(whose: str, node: str | None, phase: str | None) -> None:
    with pytest.raises(Failure) as caught:
        _whose(whose, node, phase)
    assert caught.value.exit is Exit.USAGE


OPENED = {"shell": 1, "node": "n", "directory": "/n/wd"}
OVER = {"exit_code": 7, "signal": None, "reason": None}


def environment(path: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(path.parent),
        "PYTHONPATH": os.pathsep.join(part for part in sys.path if part),
        "BATCH_COORDINATOR": str(path),
    }


@pytest.mark.parametrize("said", ["ShellWrite", "ShellResize"])
def test_what_is_typed_while_the_shell_ends_takes_nothing_from_how_it_ended(tmp_path: Path, said: str) -> None:
    reading: list[int] = []

    def answer(message: Any) -> list[m.Message]:
        match message:
            case m.ShellOpen():
                return [m.Reply(message.request, OPENED)]
            case m.ShellRead():
                first = not reading
                reading.append(message.request)
                return [m.Reply(message.request, {"content": b"ready", "ended": None})] if first else []
            case m.ShellWrite() | m.ShellResize():
                assert type(message).__name__ == said
                over = m.Reply(reading[-1], {"content": b"bye", "ended": OVER})
                return [over, m.Refused(request=message.request, code=m.RefusalCode.UNKNOWN, message="none")]
        raise AssertionError(message)

    with coordinator(tmp_path / "c.sock", answer):
        one = Typist(environment(tmp_path / "c.sock"), "shell", "j/t")
        try:
            one.reads("ready")
            if said == "ShellWrite":
                one.type("x")
            else:
                one.resize(91, 30)
            one.reads("bye")
            assert one.leaves() == 7
        finally:
            one.close()


@pytest.mark.parametrize("hears", [True, False])
def test_where_the_terminal_goes_it_ends_without_a_word(tmp_path: Path, hears: bool) -> None:
    closed = threading.Event()

    def answer(message: Any) -> list[m.Message]:
        match message:
            case m.ShellOpen():
                return [m.Reply(message.request, OPENED)]
            case m.ShellRead():
                content = b"" if closed.is_set() else b"ready"
                return [] if message.request > 2 else [m.Reply(message.request, {"content": content, "ended": None})]
            case m.ShellClose():
                closed.set()
                return [m.Reply(message.request, {})]
        raise AssertionError(message)

    with coordinator(tmp_path / "c.sock", answer), open(tmp_path / "said", "w+") as said:
        words = () if hears else ("sh", "-c", 'trap "" HUP; exec "$@"', "sh")
        one = Typist(environment(tmp_path / "c.sock"), "shell", "j/t", complains=said, before=words)
        try:
            one.reads("ready")
            one.hang_up()
            assert one.process.wait(PATIENCE_S) == (Exit.INTERRUPTED if hears else 0)
        finally:
            one.close()
        assert closed.is_set()
        said.seek(0)
        assert "mistake" not in said.read()
