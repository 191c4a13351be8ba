"""The simulated world itself: clocks, disks, the network and processes behave as they must to be of use."""

from __future__ import annotations

import signal

import pytest

from tests.simulator.disk import AppendFile, Fate, Part, RecordLog, Transaction
from tests.simulator.network import Network, Weather
from tests.simulator.processes import Processes, Tree
from tests.simulator.workload import Character, Kind
from tests.simulator.world import Clock, World


class Listener:
    """An end that remembers."""

    def __init__(self) -> None:
        self.data = b""
        self.over = False

    def received(self, data: bytes) -> None:
        self.data += data

    def ended(self) -> None:
        self.over = True


def run(world: World, seconds: float) -> None:
    world.run_until(world.now + seconds)


def linked(world: World, weather: Weather) -> tuple[Network, list[object], Listener, Listener]:
    network, here, there = Network(world, weather), Listener(), Listener()
    found: list[object] = []
    network.listen("b", lambda connection: there)
    network.dial("a", "b", found.append)
    run(world, 1.0)
    found[0].ends[0] = here  # type: ignore[attr-defined]
    return network, found, here, there


def test_events_happen_in_order_of_time_and_then_of_arrival() -> None:
    world, seen = World(0), []
    world.after(2.0, seen.append, "c")
    world.after(1.0, seen.append, "a")
    world.after(1.0, seen.append, "b")
    world.after(1.5, seen.append, "never").cancel()
    run(world, 5.0)
    assert seen == ["a", "b", "c"]


def test_a_clock_drifts_in_a_boot_and_jumps_only_on_the_wall() -> None:
    world = World(0)
    clock = Clock(world, "n", rate=1.001)
    before = clock.now()
    run(world, 100.0)
    clock.wall_error_s += 5000.0
    assert clock.now().seconds_since(before) == pytest.approx(100.1)
    assert clock.world_time(clock.now().after(10.0)) == pytest.approx(world.now + 10.0, abs=0.02)
    clock.reboot()
    assert clock.now().boot != before.boot
    assert clock.now().seconds_since(before) == pytest.approx(5100.0)


@pytest.mark.parametrize(("fate", "rows"), [(Fate.WRITTEN, 3), (Fate.TORN, 1)])
def test_a_transaction_that_a_crash_cut_short_is_there_wholly_or_not_at_all(fate: Fate, rows: int) -> None:
    log = RecordLog("log")
    log.begin(Transaction([Part([("s", b"1")])]))
    log.commit()
    log.begin(Transaction([Part([("s", b"2")]), Part([("t", b"3")])]))
    log.crash(fate)
    assert len(log.rows) == rows


def test_older_rows_of_a_forgotten_scope_go_and_new_ones_stay() -> None:
    log = RecordLog("log")
    log.begin(Transaction([Part([("s", b"1"), ("t", b"2")]), Part([("s", b"3")], frozenset({"s"}))]))
    log.commit()
    assert log.rows == [("t", b"2"), ("s", b"3")]


def test_power_loss_takes_the_tail_of_a_file_that_was_not_synced() -> None:
    lengths = set()
    for seed in range(40):
        file = AppendFile("f", [b"start", b"ended"])
        file.power_loss(World(seed))
        lengths.add(len(file.content()))
        assert b"start\nended\n".startswith(file.content())
    assert {0, 6} < lengths


def test_the_network_keeps_order_until_the_weather_turns() -> None:
    world = World(1)
    network, found, _, there = linked(world, Weather())
    for number in range(20):
        found[0].send(0, bytes([number]))  # type: ignore[attr-defined]
    run(world, 5.0)
    assert there.data == bytes(range(20))
    network.weather.reordering = network.weather.loss = network.weather.duplication = 0.3
    for number in range(50):
        found[0].send(0, bytes([number]))  # type: ignore[attr-defined]
    run(world, 5.0)
    assert there.data != bytes(range(20)) + bytes(range(50))


def test_what_is_sent_into_a_partition_arrives_after_it_or_ends_the_connection() -> None:
    for seed in range(20):
        world = World(seed)
        network, found, here, there = linked(world, Weather(lost_in_partition=0.5))
        network.partition("a", "b")
        found[0].send(0, b"x")  # type: ignore[attr-defined]
        run(world, 60.0)
        assert there.data == b""
        network.heal("a", "b")
        run(world, 5.0)
        assert there.data == b"x" or (here.over and there.over)


def test_a_peer_without_power_says_nothing_and_refuses_once_it_is_up() -> None:
    world = World(0)
    network, found, here, _ = linked(world, Weather())
    network.vanish("b")
    found[0].send(0, b"x")  # type: ignore[attr-defined]
    run(world, 300.0)
    assert not here.over
    network.appear("b")
    run(world, 60.0)
    assert here.over


def argv(character: Character) -> list[str]:
    return ["simulated", Kind.TASK.value, "j-1", "n", "g-1", "0", "1", character.text()]


def test_processes_end_leave_daemons_ignore_signals_and_freeze() -> None:
    world, told = World(0), []
    processes = Processes(world, "n", lambda what, tree: told.append(what))
    processes.on_exit["k"] = lambda pid, code, by: told.append((code, by))
    character = Character(duration_s=(5.0, 5.0), ignores_term=1.0, daemon=1.0)
    pid = processes.spawn("k", argv(character), "root", "boot", 0.0)
    tree: Tree = processes.trees[0]
    processes.kill(pid, signal.SIGTERM)
    processes.freeze()
    run(world, 100.0)
    assert tree.main_exit is None
    processes.thaw()
    run(world, 6.0)
    assert tree.main_exit == (0, None)
    assert [what for what in told if isinstance(what, str)][:2] == ["spawned", "exited"]
    processes.kill_leaf("k")
    run(world, 1.0)
    assert processes.children("k") == []
    assert "ended" in told
