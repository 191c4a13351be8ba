"""A keeper's effects keep their order when several events come before they are done."""

from __future__ import annotations

from agentd.keeper import Arrived, Connected, Exited, KeeperCore, Swept, Tick

TEMPLATE = {
    "op": "template", "id": "t", "argv": ["true"], "env": {}, "timeout_s": None, "stop_signal": 15,
    "stop_grace_s": 10, "leave_running": False, "leased": True,
}  # fmt: skip


def test_a_sweep_that_found_nothing_left_does_not_kill_the_next_command() -> None:
    core = KeeperCore("k1", 1, 1, "b")
    core.handle(Connected(), 1.0, 1.0)
    core.handle(Arrived(TEMPLATE), 1.0, 1.0)
    core.handle(Arrived({"op": "run", "items": [["a", "t", [], "a"], ["b", "t", [], "b"]]}), 1.0, 1.0)
    while core.take_ready() is not None:
        pass
    # one look for dead children reaps the main process first and then finds that nothing is left
    core.handle(Exited(0, None, 0.0, 0, False), 2.0, 2.0)
    core.handle(Swept(0), 2.0, 2.0)
    ready = core.take_ready()
    assert ready is not None
    assert ready.spawn is not None
    assert ready.tree is None


def test_a_look_that_finds_nothing_before_the_next_command_is_spawned_does_not_kill_it_later() -> None:
    core = KeeperCore("k1", 1, 1, "b")
    core.handle(Connected(), 1.0, 1.0)
    core.handle(Arrived(TEMPLATE), 1.0, 1.0)
    core.handle(Arrived({"op": "run", "items": [["a", "t", [], "a"], ["b", "t", [], "b"]]}), 1.0, 1.0)
    while core.take_ready() is not None:
        pass
    core.handle(Exited(0, None, 0.0, 0, True), 2.0, 2.0)
    core.handle(Swept(0), 2.0, 2.0)  # `b` is about to be spawned: of course nothing is alive
    ready = core.take_ready()
    assert ready is not None
    assert ready.spawn is not None
    core.handle(Tick(), 3.0, 3.0)
    while (ready := core.take_ready()) is not None:
        assert ready.tree is None
