"""What the commands for nodes ask, say and end with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.coordinator.standin import a_node
from tests.coordinator.test_cli_commands import Desk
from wire.messages import NodeDrain


@pytest.fixture
def desk(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    made = Desk(tmp_path, capfdbinary)
    monkeypatch.setenv("BATCH_COORDINATOR", str(made.socket))
    yield made


DRAIN = {"by": "ada", "reason": None, "since": None, "deadline": None, "drained_at": None}


@pytest.mark.parametrize(
    ("node", "status", "told"),
    [
        (a_node(state="drained", drain=DRAIN), 0, ""),
        (a_node(state="left", drain=DRAIN), 0, ""),
        (a_node(state="lost", drain=DRAIN), 1, "node forget"),
        (a_node(state="idle", drain=None), 1, "was enabled"),
    ],
    ids=lambda value: value["state"] if isinstance(value, dict) else None,
)
def test_a_drain_ends_as_it_went(desk: Desk, node: dict[str, object], status: int, told: str) -> None:
    with desk.answering(NodeDrain=node):
        outcome = desk.run("node", "drain", "risk-1")
    assert outcome.status == status
    assert told in outcome.err
    assert str(node["state"]) in outcome.out


def test_a_drain_asks_once_and_then_waits_so_that_its_deadline_stays_where_it_is(desk: Desk) -> None:
    asked: list[NodeDrain] = []

    def answer(message: NodeDrain) -> dict[str, object]:
        asked.append(message)
        return a_node(state="drained", drain=DRAIN)

    with desk.answering(NodeDrain=answer):
        assert desk.run("node", "drain", "risk-1").status == 0
        assert desk.run("node", "drain", "risk-1", "--no-wait", "--deadline", "10m", "--reason", "fans").status == 0
    assert [(m.deadline_s, m.wait, m.reason) for m in asked] == [
        (3600.0, False, ""), (None, True, ""), (600.0, False, "fans"),
    ]  # fmt: skip


def test_to_forget_a_node_says_that_its_machine_must_be_off(desk: Desk) -> None:
    help_text = desk.run("node", "forget", "--help").out
    assert "must be off" in help_text
    with desk.answering(NodeForget=a_node(state="left")):
        assert desk.run("node", "forget", "risk-1", "--yes").out == "risk-1 is forgotten\n"
