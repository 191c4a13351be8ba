"""Whatever happens in whatever order: a keeper starts nothing twice, forgets no end, and reports none too early."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agentd.keeper import (
    KILL,
    Arrived,
    Connected,
    Disconnected,
    Exited,
    KeeperCore,
    SpawnFailed,
    Swept,
    Tick,
    decode,
    read_record,
)

TEMPLATES = [
    {
        "op": "template",
        "id": name,
        "argv": ["x"],
        "env": {},
        "timeout_s": timeout_s,
        "stop_signal": 15,
        "stop_grace_s": 1,
        "leave_running": name == "prep",
        "leased": name == "task",
    }
    for name, timeout_s in (("task", 5), ("prep", None), ("slow", None))
]


class Machine:
    """A shell over a core: a process is a main one with some children, `deaf` ones end only by being killed, and even
    that takes `stubborn` sweeps. Effects are done late (`lag`) or at once."""

    def __init__(self) -> None:
        self.core = KeeperCore("k", 1, 1, "b", idle_exit_s=50)
        self.now = 10.0
        self.main: str | None = None
        self.children = 0
        self.stubborn = 0
        self.record: list[str] = []
        self.spawned: list[str] = []
        self.ended: list[str] = []
        self.given_back: set[str] = set()
        self.given: set[str] = set()
        self.exit = False
        self.fail_next = False
        self.unwanted: set[str] = set()
        self.finishing = False
        self.connected = True
        self.lease = float("inf")
        self.templates: dict[str, str] = {}
        self.spawned_at = 0.0
        self.used = 0.0
        """Processor seconds that were told of since the last spawn."""
        for message in TEMPLATES:
            self.core.handle(Arrived(message), self.now, self.now)

    def give(self, event: Any, deliver: bool = True) -> None:
        self.core.handle(event, self.now, self.now)
        if deliver:
            self.deliver()

    def deliver(self) -> None:
        while (ready := self.core.take_ready()) is not None:
            self.record = self.record + ready.lines if ready.rewrite is None else [*ready.rewrite, *ready.lines]
            for line in ready.lines:
                self.recorded(decode(line))
            if ready.spawn is not None:
                self.spawn(ready.spawn.key)
            if ready.signal is not None and self.main is not None:
                self.hit()
                if not self.stubborn:
                    self.main_ends()
            if ready.tree is not None:
                self.sweep(ready.tree)
            for text in ready.messages:
                self.said(decode(text), text)
            self.exit = self.exit or ready.exit
        _, started = read_record("".join(f"{line}\n" for line in self.record).encode())
        assert started in (None, *self.spawned[-1:])

    def spawn(self, key: str) -> None:
        assert self.main is None
        assert self.children == 0, "something of an earlier command is alive"
        assert key not in self.spawned
        assert key not in self.given_back
        self.spawned.append(key)
        self.used = 0.0
        if self.fail_next:
            self.fail_next = False
            self.give(SpawnFailed("no"))
        else:
            self.main = key
            self.spawned_at = self.now

    def hit(self) -> None:
        """A signal reaches the main process: there must be a reason."""
        assert self.main is not None
        timed = self.templates[self.main] == "task" and self.now >= min(self.lease, self.spawned_at + 5)
        assert self.main in self.unwanted or self.finishing or timed, "a command was hit that nobody wanted stopped"

    def main_ends(self, code: int = 0) -> None:
        if self.main is not None:
            self.main = None
            self.used += 0.25
            self.give(Exited(code, None, 0.25, 0, self.children == 0), deliver=False)

    def sweep(self, how: int) -> None:
        if how == KILL:
            if self.main is not None:
                self.hit()
            if self.stubborn:
                self.stubborn -= 1
            else:
                self.children = 0
                self.main_ends(code=9)
        self.used += 0.125
        self.give(Swept(self.children + (self.main is not None), 0.125), deliver=False)

    def recorded(self, message: dict[str, Any]) -> None:
        if message["op"] == "ended":
            succeeded = message["outcome"] == "exited" and message["exit_code"] == 0
            assert not message["leftovers"] or (succeeded and self.templates[message["key"]] == "prep")
            assert self.children == 0 or message["leftovers"], "an end was recorded while something was alive"
            assert message["outcome"] == "start_failed" or message["cpu_s"] == self.used
            assert self.main is None

    def said(self, message: dict[str, Any], text: str) -> None:
        match message["op"]:
            case "ended":
                assert text in self.record or message["key"] in self.ended
                if message["key"] not in self.ended:
                    assert message["key"] in self.spawned
                    assert self.main != message["key"]
                    self.ended.append(message["key"])
            case "recalled":
                given_back = set(message["keys"])
                assert not given_back & set(self.spawned)
                self.given_back |= given_back
            case "gone":
                assert message["survivors"] or (self.main is None and self.children == 0)

    def held(self) -> set[str]:
        """What the keeper would say it holds."""
        self.give(Disconnected())
        self.core.handle(Connected(), self.now, self.now)
        ready = self.core.take_ready()
        assert ready is not None
        hello = decode(ready.messages[0])
        for text in ready.messages[1:]:
            self.said(decode(text), text)
        return {*hello["queue"], hello["running"]}

    def pass_time(self, seconds: float) -> None:
        until = self.now + seconds
        for _ in range(2000):
            deadline = self.core.next_deadline()
            if self.exit or deadline is None or deadline > until:
                break
            self.now = max(self.now, deadline)
            self.give(Tick())
        else:
            raise AssertionError("deadlines do not advance")
        self.now = until


RUN = st.tuples(st.just("run"), st.sampled_from(["task", "prep", "slow"]), st.integers(1, 4), st.booleans())
EXIT = st.tuples(st.just("exit"), st.sampled_from([0, 0, 1]), st.booleans())
FORK = st.tuples(st.just("fork"), st.integers(1, 3))
ORPHANS_DIE = st.tuples(st.just("orphans die"))
STOP_RUNNING = st.tuples(st.just("stop running"), st.booleans())
RARE = st.one_of(
    st.tuples(st.just("stubborn"), st.integers(0, 3)),
    st.tuples(st.just("fail")),
    st.tuples(st.just("time"), st.sampled_from([0.001, 0.05, 0.3, 2.0, 8.0])),
    st.tuples(st.just("again"), st.integers(0, 12)),
    st.tuples(st.just("recall")),
    st.tuples(st.just("stop"), st.integers(0, 12), st.booleans()),
    st.tuples(st.just("lease"), st.sampled_from([-1.0, 0.5, 5.0])),
    st.tuples(st.just("ack")),
    st.tuples(st.just("agent"), st.booleans()),
    st.tuples(st.just("finish"), st.sampled_from([0.0, 2.0])),
)
STEPS = st.one_of(RUN, RUN, EXIT, EXIT, FORK, ORPHANS_DIE, STOP_RUNNING, RARE, RARE)


def step(machine: Machine, what: tuple[Any, ...]) -> None:
    match what:
        case ("run", template, count, deliver):
            keys = [f"{len(machine.given) + number}" for number in range(count)]
            machine.given.update(keys)
            machine.templates.update(dict.fromkeys(keys, template))
            items = [[key, template, [], key] for key in keys]
            machine.give(Arrived({"op": "run", "items": items}), deliver)
        case ("again", number):
            key = str(number)
            if (
                machine.connected
                and not machine.finishing
                and key in machine.given
                and (key not in machine.spawned or key not in machine.ended)
            ):
                # A key that was given back may come again; one that is held is not taken twice.
                returned = key in machine.given_back
                machine.given_back.discard(key)
                machine.give(Arrived({"op": "run", "items": [[key, machine.templates[key], [], key]]}))
                queued_or_over = key in machine.spawned or key in machine.given_back
                assert not returned or queued_or_over or key in machine.held(), "a command was forgotten"
        case ("exit", code, deliver):
            machine.main_ends(code)
            if deliver:
                machine.deliver()
        case ("fork", count):
            if machine.main is not None:
                machine.children += count
        case ("stubborn", count):
            machine.stubborn = count
        case ("fail",):
            machine.fail_next = True
        case ("orphans die",):
            machine.children = 0
            if machine.main is None:
                machine.give(Swept(0))
        case ("time", seconds):
            machine.deliver()
            machine.pass_time(seconds)
        case ("stop", key, deliver):
            machine.unwanted.add(str(key))
            machine.give(Arrived({"op": "stop", "key": str(key), "reason": "r"}), deliver)
        case ("stop running", deliver) if machine.main is not None:
            step(machine, ("stop", int(machine.main), deliver))
        case ("lease", seconds):
            machine.lease = machine.now + seconds
            machine.give(Arrived({"op": "lease", "until": machine.lease}))
        case ("ack" | "recall" as op,):
            machine.give(Arrived({"op": op, "seq": len(machine.ended), "keys": None}))
        case ("agent", there):
            machine.deliver()
            machine.connected = there
            machine.give(Connected() if there else Disconnected())
        case ("finish", grace_s):
            machine.finishing = True
            machine.give(Arrived({"op": "finish", "grace_s": grace_s}))


@settings(max_examples=1000)
@given(st.lists(STEPS, min_size=3, max_size=60))
def test_a_keeper_keeps_its_promises_in_any_order_of_events(steps):
    machine = Machine()
    machine.give(Connected())
    for what in steps:
        if machine.exit:
            break
        step(machine, what)
    # In the end the agent is back, takes everything, and lets the keeper go.
    machine.stubborn = 0
    machine.deliver()
    if not machine.exit:
        machine.give(Disconnected())
        machine.give(Connected())
        machine.finishing = True
        machine.give(Arrived({"op": "finish", "grace_s": 0}))
        machine.pass_time(60)
    assert machine.main is None
    assert machine.children == 0
    assert machine.exit
    # All that was given ended or was given back; what was said into a lost session is in the record.
    recorded = {end["key"] for end in read_record("".join(f"{line}\n" for line in machine.record).encode())[0]}
    assert set(machine.spawned) <= set(machine.ended) | recorded
    assert len(machine.ended) == len(set(machine.ended))
