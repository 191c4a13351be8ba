"""`coordinator shell` without its terminal: what is typed to leave it, and what it ends with."""

from __future__ import annotations

import pytest

from coordinator.cli.failure import Exit, Failure
from coordinator.cli.shell import Escapes, _status, _whose


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
