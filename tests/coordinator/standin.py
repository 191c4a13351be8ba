"""A coordinator that only answers what a test told it to, over a real socket in the real protocol."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wire.codec import ProtocolError
from wire.connection import Connection
from wire.messages import PROTOCOL_VERSION, Goodbye, Hello, Message, Refused, Reply, Role, Welcome

Answer = Callable[[Any], Any]


class StandIn:
    """Answers requests by their kind. An answer is a body, a Refused (its `request` is filled in), or None: hang up."""

    def __init__(self, path: Path, answers: dict[str, Any]) -> None:
        self.path = path
        self.answers = answers
        self.asked: list[Message] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # it has ended by itself
        for thread in list(self._threads):
            thread.join(10)

    def kinds(self) -> list[str]:
        return [type(message).__name__ for message in self.asked]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection, len(self._threads)), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket, epoch: int) -> None:
        rules = Connection(Role.COORDINATOR, allowed=frozenset({Role.USER, Role.OPERATOR, Role.ADMIN}))
        with connection:
            while content := connection.recv(65_536):
                rules.receive_bytes(content)
                try:
                    while (message := rules.next_event()) is not None:
                        answer = self._answer(message, epoch)
                        if answer is None:
                            return
                        connection.sendall(rules.send(answer))
                except ProtocolError as error:
                    connection.sendall(rules.farewell(str(error)))
                    return

    def _answer(self, message: Any, epoch: int) -> Any:
        if isinstance(message, Hello):
            return Welcome(PROTOCOL_VERSION, epoch)
        if isinstance(message, Goodbye):
            return None
        self.asked.append(message)
        answer = self.answers[type(message).__name__]
        if callable(answer):
            answer = answer(message)
        elif isinstance(answer, list) and _begun(message):
            answer = []  # a list given as it is fits one page
        if isinstance(answer, Refused):
            fields = {name: getattr(answer, name) for name in answer.__struct_fields__}
            return Refused(**{**fields, "request": message.request})
        return None if answer is None else Reply(message.request, answer)


def _begun(message: Any) -> bool:
    """Whether the page asked for is not the first one."""
    return bool(getattr(message, "skip", 0) or getattr(message, "after", None))


@contextmanager
def stand_in(path: Path, answers: dict[str, Any]) -> Iterator[StandIn]:
    standing = StandIn(path, answers)
    try:
        yield standing
    finally:
        standing.close()


def a_job(**changed: Any) -> dict[str, Any]:
    """A job as the coordinator shows it: eight tasks, all well."""
    return {
        "id": "daily-3",
        "name": "daily",
        "pool": "risk",
        "state": "completed",
        "result": "success",
        "owner": "ann",
        "priority": 0,
        "submitted_at": "2026-11-22T09:00:00.000Z",
        "started_at": "2026-11-22T09:00:00.500Z",
        "tasks_done_at": "2026-11-22T09:00:11.000Z",
        "completed_at": "2026-11-22T09:00:12.000Z",
        "end_reason": "AllTasksComplete",
        "optional_failed": 0,
        "tasks": {**dict.fromkeys(TASK_STATES, 0), "total": 8, "succeeded": 8},
        "release": {"owed": 0, "succeeded": 1, "failed": 0, "unreached": 0, "waived": 0},
        **changed,
    }


TASK_STATES = ("total", "active", "preparing", "running", "succeeded", "failed", "cancelled", "skipped")


def counts(**given: int) -> dict[str, int]:
    """Tasks by state; the total is their sum."""
    return {**dict.fromkeys(TASK_STATES, 0), **given, "total": sum(given.values())}


def a_phase(**changed: Any) -> dict[str, Any]:
    return {
        "state": "succeeded",
        "attempts": 1,
        "exit_code": 0,
        "signal": None,
        "started_at": "2026-11-22T09:00:00.500Z",
        "ended_at": "2026-11-22T09:00:01.000Z",
        "reason": None,
        "stdout_tail": "",
        "stderr_tail": "",
        **changed,
    }


def a_node_job(**changed: Any) -> dict[str, Any]:
    return {
        "node": "risk-1",
        "round": 1,
        "boot": "b",
        "state": "released",
        "prep": a_phase(),
        "release": a_phase(),
        "tasks_started": 8,
        **changed,
    }


def a_task(**changed: Any) -> dict[str, Any]:
    return {
        "id": "daily-3/price[17,fx]",
        "job": "daily-3",
        "group": "price",
        "index": 33,
        "params": {"scenario": 17, "desk": "fx"},
        "state": "completed",
        "result": "success",
        "exit_code": 0,
        "signal": None,
        "attempts": 1,
        "node": "risk-1",
        "created_at": "2026-11-22T09:00:00.000Z",
        "started_at": "2026-11-22T09:00:02.000Z",
        "ended_at": "2026-11-22T09:00:04.500Z",
        "reason": None,
        "usage": {"cpu_s": 0.25, "max_rss_bytes": 9_000_000, "wall_s": 2.5},
        **changed,
    }


def a_node(**changed: Any) -> dict[str, Any]:
    return {
        "id": "risk-1",
        "pool": "risk",
        "state": "idle",
        "reason": None,
        "boot": "b",
        "slots": 8,
        "slots_used": 0,
        "resources": {"cpus": {"total": 8, "used": 0}, "memory": {"total": 17_179_869_184, "used": 0}},
        "labels": {"zone": "a"},
        "elevation": False,
        "containment": "cgroup",
        "version": "0.1.0",
        "last_seen_s": 0.4,
        "start": None,
        "owes": [],
        **changed,
    }
