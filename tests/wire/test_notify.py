"""What a service manager hears on a real socket, and that nobody else suffers when it does not listen."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from wire.notify import VARIABLE, Supervisor, own_supervisor


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        yield listening


def heard(ear: socket.socket) -> list[str]:
    """Everything that was said so far."""
    said = []
    try:
        while True:
            said.append(ear.recv(4096).decode())
    except BlockingIOError:
        return said


def test_it_says_ready_then_each_status_once_then_that_it_stops(ear: socket.socket) -> None:
    to_it = Supervisor(ear.getsockname())
    assert to_it.ready("serving") is None
    to_it.status("serving")
    to_it.status("alone")
    to_it.status("alone")
    to_it.stopping()
    assert heard(ear) == ["READY=1\nSTATUS=serving", "STATUS=alone", "STOPPING=1\nSTATUS=stopping"]


def test_a_status_can_set_no_other_variable(ear: socket.socket) -> None:
    Supervisor(ear.getsockname()).status("cut:\nMAINPID=1\r\nREADY=1 " + "x" * 1000)
    (said,) = heard(ear)
    assert said.startswith("STATUS=cut: MAINPID=1 READY=1 x")
    assert "\n" not in said
    assert len(said) < 250


def test_a_socket_without_a_file_is_reached_too() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind("")  # the kernel gives it an abstract name
        name = ear.getsockname()
        assert Supervisor("@" + name[1:].decode()).ready("up") is None
        assert ear.recv(100) == b"READY=1\nSTATUS=up"


def test_a_supervisor_that_does_not_listen_costs_a_sentence(tmp_path: Path) -> None:
    reason = Supervisor(str(tmp_path / "nobody")).ready("up")
    assert reason is not None
    assert "nobody: No such file" in reason


def test_without_a_supervisor_nothing_is_said() -> None:
    assert [Supervisor(None).ready("up"), Supervisor(None).status("up"), Supervisor(None).stopping()] == [None] * 3


def test_the_variable_is_taken_out_of_the_environment(ear: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, ear.getsockname())
    own_supervisor().stopping()
    assert VARIABLE not in os.environ
    assert len(heard(ear)) == 1
    monkeypatch.delenv(VARIABLE, raising=False)
    assert own_supervisor().stopping() is None
    assert heard(ear) == []
