"""The keeper's core as transcripts: events in, effects out, no process anywhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from agentd.keeper import (
    KILL,
    LOOK,
    VERSION,
    AgentGone,
    Arrived,
    Connected,
    Disconnected,
    Exited,
    KeeperCore,
    ProtocolError,
    Spawn,
    SpawnFailed,
    Swept,
    Tick,
    _bytes_shown,
    decode,
    encode,
    read_record,
)

ROOT = Path(__file__).parent.parent.parent
WALL = 1_700_000_000.0
TASK = {
    "op": "template",
    "id": "t",
    "argv": ["prog", 0],
    "env": {"A": "x", "B": 1},
    "timeout_s": 30,
    "stop_signal": 15,
    "stop_grace_s": 10,
    "leave_running": False,
    "leased": True,
}


class Play:
    """A keeper's core with its effects written down, as its shell would do them; nothing happens by itself."""

    def __init__(self, **settings: Any) -> None:
        self.core = KeeperCore("k1", 4711, 99, "boot", **settings)
        self.now = 100.0
        self.record: list[str] = []
        self.done: list[Any] = []
        self.said: list[dict[str, Any]] = []
        self.exit = False
        self.give(Connected())

    def give(self, event: Any) -> None:
        self.core.handle(event, self.now, WALL + self.now)
        while (ready := self.core.take_ready()) is not None:
            if ready.rewrite is not None:
                self.record = list(ready.rewrite)
            self.record += ready.lines
            if ready.spawn is not None:
                assert decode(self.record[-1]) == {"op": "start", "key": ready.spawn.key}
                self.done.append(ready.spawn)
            if ready.signal is not None:
                self.done.append(("signal", ready.signal))
            if ready.tree is not None:
                self.done.append(("tree", ready.tree))
            for text in ready.messages:
                message = decode(text)
                if message["op"] == "ended":
                    assert text in self.record
                self.said.append(message)
            self.exit = self.exit or ready.exit

    def say(self, op: str, **fields: Any) -> None:
        self.give(Arrived({"op": op, **fields}))

    def template(self, **changes: Any) -> None:
        self.give(Arrived({**TASK, **changes}))

    def run(self, *keys: str, template: str = "t") -> None:
        self.say("run", items=[[key, template, [f"v-{key}", "w"], f"job/{key}"] for key in keys])

    def sleep(self, seconds: float) -> None:
        """Let time pass, with a tick at each deadline."""
        until = self.now + seconds
        for _ in range(1000):
            deadline = self.core.next_deadline()
            if self.exit or deadline is None or deadline > until:
                break
            self.now = max(self.now, deadline)
            self.give(Tick())
        else:
            raise AssertionError("the core's deadlines do not advance")
        self.now = until

    def exits(self, code: int | None = 0, signal: int | None = None, alone: bool = True) -> None:
        self.give(Exited(code, signal, 0.5, 4096, alone))

    def take_done(self) -> list[Any]:
        done, self.done = self.done, []
        return [effect.key if isinstance(effect, Spawn) else effect for effect in done]

    def take_said(self, *ops: str) -> list[dict[str, Any]]:
        said, self.said = self.said, []
        return [message for message in said if not ops or message["op"] in ops]


@pytest.fixture
def play() -> Play:
    play = Play()
    play.template()
    play.said.clear()
    return play


def test_hello_says_who_and_what_is_held():
    play = Play()
    assert play.said == [
        {
            "op": "hello",
            "version": VERSION,
            "keeper": "k1",
            "pid": 4711,
            "boot": "boot",
            "starttime": 99,
            "queue": [],
            "running": None,
            "leftovers": False,
            "seq": 0,
        }
    ]


def test_a_command_gets_its_values_its_deadline_and_its_keepers_mark(play):
    play.run("a")
    spawn = play.done[0]
    assert spawn.argv == [b"prog", b"v-a"]
    assert spawn.env == {
        b"A": b"x",
        b"B": b"w",
        b"BATCH_KEEPER": b"k1",
        b"BATCH_DEADLINE": str(int(WALL + 130)).encode(),
    }
    assert spawn.directory == "job/a"


def test_values_arrive_as_they_are():
    play = Play()
    play.template(timeout_s=None)
    text = "a'b\"c\n$(d) é \u2603 \U0001f600 \\" + "x" * 100_000
    play.say("run", items=[["k", "t", [text, ""], "d"]])
    assert play.done[0].argv[1] == text.encode()
    assert b"BATCH_DEADLINE" not in play.done[0].env


def test_commands_run_one_after_another_in_order(play):
    play.run("a", "b")
    play.run("c")
    assert play.take_done() == ["a"]
    play.exits()
    assert play.take_done() == ["b"]
    play.exits(code=3)
    play.exits(code=None, signal=11)
    ends = play.take_said("ended")
    assert [(end["seq"], end["key"], end["outcome"], end["exit_code"], end["signal"]) for end in ends] == [
        (1, "a", "exited", 0, None),
        (2, "b", "exited", 3, None),
        (3, "c", "exited", None, 11),
    ]
    assert ends[0]["cpu_s"] == 0.5
    assert ends[0]["max_rss_bytes"] == 4096


def test_the_record_has_the_start_before_the_spawn_and_the_end_before_the_report(play):
    play.run("a")
    play.exits()
    start, ended = map(decode, play.record)
    assert start == {"op": "start", "key": "a"}
    assert ended == play.take_said("ended")[0]


def test_what_the_main_process_leaves_is_killed_before_the_end_is_recorded(play):
    play.run("a")
    play.exits(alone=False)
    assert play.take_done() == ["a", ("tree", KILL)]
    assert len(play.record) == 1
    play.give(Swept(2))
    play.sleep(0.01)
    assert play.take_done() == [("tree", KILL)]
    assert not play.said
    play.give(Swept(0))
    assert play.take_said("ended")[0]["exit_code"] == 0


def test_a_timeout_signals_all_then_kills_all(play):
    play.run("a")
    play.sleep(29.9)
    assert play.take_done() == ["a"]
    play.sleep(0.2)
    assert play.take_done() == [("signal", 15)]
    play.sleep(9.5)
    assert play.take_done() == []
    play.sleep(0.6)
    assert play.take_done() == [("tree", KILL)]
    play.exits(code=None, signal=9, alone=False)
    play.give(Swept(0))
    end = play.take_said("ended")[0]
    assert (end["outcome"], end["exit_code"], end["signal"]) == ("timed_out", None, 9)
    assert end["reason"] == "It ran longer than its timeout of 30 s."


def test_children_have_the_rest_of_the_grace_when_the_main_process_goes_first(play):
    play.run("a")
    play.say("stop", key="a", reason="not wanted")
    play.exits(code=None, signal=15, alone=False)
    assert play.take_done() == ["a", ("signal", 15)]
    play.sleep(0.002)
    assert play.take_done() == [("tree", LOOK)]
    play.give(Swept(1))
    play.sleep(0.003)
    assert play.take_done() == [("tree", LOOK)]
    play.give(Swept(0))
    end = play.take_said("ended")[0]
    assert (end["outcome"], end["reason"], end["signal"]) == ("killed", "not wanted", 15)


def test_children_that_outstay_the_grace_are_killed(play):
    play.run("a")
    play.say("stop", key="a", reason="not wanted")
    play.exits(code=0, alone=False)
    play.give(Swept(1))
    play.sleep(10.1)
    assert play.take_done()[-1] == ("tree", KILL)


def test_stopping_what_is_queued_gives_it_back(play):
    play.run("a", "b", "c")
    play.say("stop", key="b", reason="not wanted")
    assert play.take_said("recalled") == [{"op": "recalled", "keys": ["b"]}]
    play.exits()
    assert play.take_done() == ["a", "c"]


def test_stopping_what_has_ended_changes_nothing(play):
    play.run("a")
    play.exits()
    before = list(play.record)
    play.say("stop", key="a", reason="late")
    play.say("stop", key="never-heard-of", reason="late")
    assert play.take_done() == ["a"]
    assert play.record == before
    assert not play.take_said("recalled")


def test_recall_returns_what_never_started_and_only_that(play):
    play.run("a", "b", "c", "d")
    play.say("recall", keys=["a", "c"])
    play.say("recall", keys=None)
    assert [message["keys"] for message in play.take_said("recalled")] == [["c"], ["b", "d"]]
    play.exits()
    assert play.take_done() == ["a"]


def test_a_key_that_is_held_is_not_taken_twice(play):
    play.run("a", "b")
    play.run("a", "b")
    play.exits()
    play.run("a")
    play.exits()
    play.run("b")
    assert play.take_done() == ["a", "b"]
    play.say("ack", seq=2)
    play.run("a")
    assert play.take_done() == ["a"]


def test_what_was_given_back_may_come_again(play):
    play.run("a", "b")
    play.say("recall", keys=None)
    play.run("b")
    play.exits()
    assert play.take_done() == ["a", "b"]


def test_a_signal_that_was_not_sent_yet_does_not_hit_the_next_command(play):
    play.run("a", "b")
    stop = Arrived({"op": "stop", "key": "a", "reason": "not wanted"})
    play.core.handle(stop, play.now, WALL)
    play.exits()  # had been over before the stop could be done
    assert play.take_done() == ["a", "b"]


def test_news_that_nothing_is_left_before_the_spawn_is_done_changes_nothing(play):
    item = Arrived({"op": "run", "items": [["a", "t", ["v", "w"], "d"]]})
    play.core.handle(item, play.now, WALL)
    play.give(Swept(0))
    play.sleep(1)
    assert play.take_done() == ["a"]


def test_ends_travel_together_while_the_queue_is_full_and_at_once_when_it_runs_dry(play):
    play.run(*(f"k{number}" for number in range(200)))
    sizes = []
    for _ in range(200):
        play.exits()
        if play.said:
            sizes.append(len(play.take_said("ended")))
    assert sizes[:2] == [64, 64]
    assert sizes[-1] == 1
    assert sum(sizes) == 200


def test_ends_do_not_wait_longer_than_some_milliseconds(play):
    play.run("a", "b", "c", "d", "e")
    play.exits()
    assert not play.said
    play.sleep(0.021)
    assert [end["key"] for end in play.take_said("ended")] == ["a"]


def test_a_long_command_is_announced_a_short_one_is_not(play):
    play.run("a", "b")
    play.sleep(0.1)
    play.exits()
    play.sleep(0.19)
    assert not play.take_said("started")
    play.sleep(0.02)
    assert [(message["key"], message["at"]) for message in play.take_said("started")] == [("b", WALL + 100.1)]


def test_a_start_that_failed_is_an_end_with_its_reason_and_the_next_one_runs(play):
    play.run("a", "b")
    play.give(SpawnFailed("There is no program prog."))
    assert play.take_done() == ["a", "b"]
    play.exits()
    ends = play.take_said("ended")
    assert (ends[0]["outcome"], ends[0]["reason"], ends[0]["exit_code"]) == (
        "start_failed",
        "There is no program prog.",
        None,
    )
    assert ends[1]["outcome"] == "exited"
    assert ends[1]["reason"] is None


# ---- what a preparation leaves running


def test_a_preparation_that_succeeded_may_leave_something_running(play):
    play.template(id="prep", leave_running=True, leased=False)
    play.run("p", template="prep")
    play.exits(alone=False)
    assert play.take_done() == ["p"]
    assert play.take_said("ended")[0]["leftovers"] is True
    assert play.core.busy


def test_what_a_failed_preparation_leaves_is_killed(play):
    play.template(id="prep", leave_running=True, leased=False)
    play.run("p", template="prep")
    play.exits(code=1, alone=False)
    assert play.take_done() == ["p", ("tree", KILL)]
    play.give(Swept(0))
    assert play.take_said("ended")[0]["leftovers"] is False


def test_a_keeper_with_leftovers_gives_back_what_else_it_is_given(play):
    play.template(id="prep", leave_running=True, leased=False)
    play.run("p", template="prep")
    play.run("q")
    play.exits(alone=False)
    play.run("r")
    assert play.take_done() == ["p"]
    assert [message["keys"] for message in play.take_said("recalled")] == [["q"], ["r"]]


def test_leftovers_end_politely_with_the_keeper(play):
    play.template(id="prep", leave_running=True, leased=False)
    play.run("p", template="prep")
    play.exits(alone=False)
    play.take_done()
    play.say("ack", seq=1)
    play.say("finish", grace_s=2)
    assert play.take_done() == [("signal", 15)]
    play.sleep(0.001)
    assert play.take_done() == [("tree", LOOK)]
    play.give(Swept(1))
    play.sleep(2.1)
    assert play.take_done()[-1] == ("tree", KILL)
    assert not play.exit
    play.give(Swept(0))
    assert play.take_said("gone") == [{"op": "gone", "survivors": 0}]
    assert play.exit


# ---- the lease


def test_at_lease_end_leased_commands_are_killed_within_five_seconds(play):
    play.template(stop_grace_s=60, timeout_s=None)
    play.say("lease", until=110.0)
    play.run("a", "b")
    play.sleep(9.9)
    assert play.take_done() == ["a"]
    play.sleep(0.2)
    assert play.take_done() == [("signal", 15)]
    assert [message["keys"] for message in play.take_said("recalled")] == [["b"]]
    play.sleep(5)
    assert play.take_done() == [("tree", KILL)]
    play.exits(code=None, signal=9)
    play.give(Swept(0))
    end = play.take_said("ended")[0]
    assert (end["outcome"], end["reason"]) == ("killed", "The node was out of contact for longer than its lease.")


def test_the_lease_ends_without_an_agent_as_well(play):
    play.say("lease", until=110.0)
    play.run("a")
    play.give(Disconnected())
    play.sleep(10.1)
    assert play.take_done() == ["a", ("signal", 15)]


def test_a_lease_that_is_extended_in_time_kills_nothing(play):
    play.template(timeout_s=None)
    play.say("lease", until=110.0)
    play.run("a")
    play.sleep(9)
    play.say("lease", until=130.0)
    play.sleep(20)
    assert play.take_done() == ["a"]
    play.say("lease", until=None)
    play.sleep(1000)
    assert play.take_done() == []


def test_an_extension_that_had_arrived_counts_although_the_keeper_slept(play):
    """The shell gives what lies in the socket before it says that time has passed."""
    play.template(timeout_s=None)
    play.say("lease", until=110.0)
    play.run("a")
    play.now = 125.0
    play.say("lease", until=140.0)
    play.give(Tick())
    assert play.take_done() == ["a"]


def test_no_leased_command_starts_after_the_lease(play):
    play.template(id="prep", leased=False, timeout_s=None)
    play.say("lease", until=99.0)
    play.run("a")
    play.run("p", template="prep")
    assert play.take_done() == ["p"]
    assert [message["keys"] for message in play.take_said("recalled")] == [["a"]]
    play.sleep(100)
    assert play.take_done() == []


def test_the_lease_shortens_a_grace_that_runs_already(play):
    play.template(stop_grace_s=600, timeout_s=None)
    play.say("lease", until=110.0)
    play.run("a")
    play.say("stop", key="a", reason="not wanted")
    play.take_done()
    play.sleep(15.1)
    assert play.take_done() == [("tree", KILL)]


# ---- the agent comes and goes


def test_what_was_not_acked_is_said_again_to_the_next_agent(play):
    play.run("a", "b", "c")
    play.exits()
    play.give(Disconnected())
    play.exits()
    play.sleep(0.5)
    play.said.clear()
    play.give(Connected())
    hello, first, second, started = play.take_said()
    assert (hello["op"], hello["queue"], hello["running"], hello["seq"]) == ("hello", [], "c", 2)
    assert (first["key"], second["key"]) == ("a", "b")
    assert (started["op"], started["key"]) == ("started", "c")
    play.say("ack", seq=1)
    play.give(Disconnected())
    play.give(Connected())
    assert [message["key"] for message in play.take_said("ended")] == ["b"]


def test_nothing_is_said_without_a_session_but_all_is_recorded(play):
    play.give(Disconnected())
    play.run("a")  # had arrived before
    play.exits()
    assert not play.said
    assert [decode(line)["op"] for line in play.record] == ["start", "ended"]


def test_the_record_is_emptied_when_all_is_acked_and_nothing_runs(play):
    play.run("a", "b")
    play.exits()
    play.say("ack", seq=1)
    assert len(play.record) == 3
    play.exits()
    play.say("ack", seq=2)
    assert play.record == []


def test_the_record_stays_small_while_the_keeper_is_never_idle(play):
    play.run("k0")
    for number in range(5000):
        play.run(f"k{number + 1}")
        play.exits()
        play.say("ack", seq=number)
        assert sum(map(len, play.record)) < 300_000
    ended, started = read_record("".join(f"{line}\n" for line in play.record).encode())
    assert started == "k5000"
    assert [end["key"] for end in ended][-2:] == ["k4998", "k4999"]


def test_a_ping_is_answered_while_a_command_runs(play):
    play.run("a")
    play.say("ping", n=7)
    assert play.take_said("pong") == [{"op": "pong", "n": 7}]


def test_an_idle_keeper_without_agent_leaves_after_a_while():
    play = Play(idle_exit_s=60)
    play.sleep(1000)
    assert not play.exit
    play.give(Disconnected())
    play.sleep(59)
    assert not play.exit
    play.sleep(2)
    assert play.exit


def test_a_keeper_without_agent_stays_while_something_is_queued_or_left():
    play = Play(idle_exit_s=60)
    play.template(leave_running=True, leased=False, timeout_s=None)
    play.run("p")
    play.give(Disconnected())
    play.sleep(100)
    play.exits(alone=False)
    play.sleep(100)
    assert not play.exit
    play.give(Swept(0))  # what was left has gone by itself
    play.sleep(61)
    assert play.exit


# ---- the end of a keeper


def test_finish_stops_what_runs_returns_what_waits_and_says_gone(play):
    play.run("a", "b")
    play.say("finish", grace_s=3, reason="its job ended")
    assert play.take_done() == ["a", ("signal", 15)]
    play.sleep(3.1)
    assert play.take_done() == [("tree", KILL)]
    play.exits(code=None, signal=9)
    play.give(Swept(0))
    assert play.take_done() == [("tree", KILL)]  # once more, to be sure that nothing is left
    assert not play.exit
    play.give(Swept(0))
    assert [message["op"] for message in play.take_said()] == ["recalled", "started", "ended", "gone"]
    assert not play.exit  # the end is not acked
    play.say("ack", seq=1)
    assert play.exit


def test_a_finished_keeper_does_not_wait_for_its_agent_for_ever(play):
    play.run("a")
    play.give(Disconnected())
    play.say("finish", grace_s=0)
    play.exits(code=None, signal=9)
    play.give(Swept(0))
    play.sleep(9)
    assert not play.exit
    play.sleep(2)
    assert play.exit
    assert read_record("".join(f"{line}\n" for line in play.record).encode())[0][0]["key"] == "a"


def test_a_finished_keeper_takes_nothing_more(play):
    play.say("finish", grace_s=0)
    play.run("a")
    assert play.take_said("recalled")[-1]["keys"] == ["a"]
    assert "a" not in play.take_done()


def test_an_agent_whose_directory_is_gone_ends_its_keepers(play):
    play.run("a", "b")
    play.give(Disconnected())
    play.give(AgentGone())
    play.sleep(0.001)
    assert play.take_done() == ["a", ("signal", 15), ("tree", KILL)]
    play.exits(code=None, signal=9)
    play.give(Swept(0))
    play.give(Swept(0))
    assert play.exit  # nobody will ack


def test_a_process_that_does_not_die_is_said_to_be_stuck(play):
    play.run("a")
    play.exits(alone=False)
    play.give(Swept(1))
    for _ in range(120):
        play.sleep(0.1)
        play.give(Swept(1))
    assert play.take_said("stuck") == [{"op": "stuck", "key": "a"}]
    assert ("tree", KILL) in play.take_done()[-3:]
    play.give(Swept(0))
    assert len(play.take_said("ended")) == 1


# ---- bad input


@pytest.mark.parametrize(
    "message",
    [
        None,
        [],
        {},
        {"op": "launch"},
        {"op": "run"},
        {"op": "run", "items": [["k"]]},
        {"op": "run", "items": [["k", "unknown", [], "d"]]},
        {"op": "run", "items": [["k", "t", [], "d"]]},
        {"op": "run", "items": [["k", "t", [1, 2], "d"]]},
        {"op": "run", "items": [[1, "t", ["a", "b"], "d"]]},
        {"op": "ack", "seq": "1"},
        {"op": "lease", "until": "soon"},
        {"op": "stop", "key": "k"},
        {"op": "finish", "grace_s": -1},
        {"op": "recall", "keys": 3},
        {**TASK, "argv": []},
        {**TASK, "argv": [None]},
        {**TASK, "argv": ["a", -1]},
        {**TASK, "argv": ["a", True]},
        {**TASK, "env": {"A": 1.5}},
        {**TASK, "stop_signal": 0},
        {**TASK, "timeout_s": "1"},
        {**TASK, "leased": 1},
    ],
)
def test_a_malformed_message_is_refused_and_changes_nothing(play, message):
    with pytest.raises(ProtocolError):
        play.give(Arrived(message))
    assert play.core.take_ready() is None
    play.run("a")
    assert play.take_done() == ["a"]


def test_a_run_with_one_bad_item_queues_none_of_it(play):
    with pytest.raises(ProtocolError):
        play.say("run", items=[["a", "t", ["v", "w"], "d"], ["b", "nope", [], "d"]])
    play.give(Tick())
    assert play.take_done() == []


def test_json_is_as_the_json_package_has_it():
    import json

    for value in (None, [1, -2.5, "é\n\u2028", {"a": [True, False]}], {}, "", 10**20, [[[]]]):
        assert decode(encode(value)) == value
        assert decode(json.dumps(value)) == value
        assert json.loads(encode(value)) == value
    for text in ("", "{", "[1,]", "nul", "NaN", "[1] 2", '"\n"'):
        with pytest.raises(ValueError):
            decode(text)


def test_a_record_is_read_although_its_last_line_is_torn():
    lines = [
        {"op": "start", "key": "a"},
        {"op": "ended", "key": "a", "seq": 1},
        {"op": "start", "key": "b"},
    ]
    content = "".join(encode(line) + "\n" for line in lines).encode()
    assert read_record(content) == ([lines[1]], "b")
    assert read_record(content + b'{"op":"ended","key":"b"') == ([lines[1]], "b")
    assert read_record(content[:-3]) == ([lines[1]], None)
    assert read_record(b"") == ([], None)
    assert read_record(b"\0\0\0\n[]\n3\n") == ([], None)


def test_the_protocol_in_the_documents_is_the_one_spoken(play):
    section = (ROOT / "docs" / "design.md").read_text("utf-8").partition("\n## The keeper\n")[2].partition("\n## ")[0]
    told, _, heard = section.partition("keeper → agent")
    for op in re.findall(r"^\| `(\w+)` \|", told, re.MULTILINE):
        try:
            play.say(op)
        except ProtocolError as error:
            assert "unknown op" not in str(error)
    source = (ROOT / "agentd" / "keeper.py").read_text("utf-8")
    spoken = set(re.findall(r'"op": ?\\?"(\w+)', source)) | set(re.findall(r'"op":"(\w+)', source))
    documented = set(re.findall(r"^\| `(\w+)` \|", heard, re.MULTILINE))
    assert documented == spoken - {"start", "memfd", "record"}
    assert documented >= {"hello", "ended", "gone"}


# ---- what the kernel counted


@pytest.mark.parametrize(
    ("exit_code", "signum", "starved", "outcome", "reason"),
    [
        (None, 9, True, "oom", "The kernel killed it: it needed more memory than it was given (1.5 GiB)."),
        (None, 9, False, "exited", None),
        (None, 11, True, "exited", "The kernel killed a process of it, which needed more memory than it was given"),
        (137, None, True, "oom", "The kernel killed it: it needed more memory than it was given (1.5 GiB)."),
        (137, None, False, "exited", None),
        (1, None, True, "exited", "The kernel killed a process of it, which needed more memory than it was given"),
        (0, None, True, "exited", None),
    ],
)
def test_a_command_killed_for_want_of_memory_says_so(exit_code, signum, starved, outcome, reason):
    play = Play(memory_bytes=3 << 29)
    play.template()
    play.run("a")
    play.give(Exited(exit_code, signum, 0.5, 4096, True, starved))
    play.sleep(0.1)
    [ended] = play.take_said("ended")
    assert (ended["outcome"], ended["exit_code"], ended["signal"]) == (outcome, exit_code, signum)
    assert ended["reason"] is None if reason is None else ended["reason"].startswith(reason)


def test_a_command_that_was_stopped_is_not_called_killed_for_want_of_memory(play):
    play.run("a")
    play.sleep(30)
    play.give(Exited(None, 9, 0.5, 4096, True, starved=True))
    play.sleep(0.1)
    assert [ended["outcome"] for ended in play.take_said("ended")] == ["timed_out"]


def test_without_a_limit_of_its_own_the_nodes_is_named(play):
    play.run("a")
    play.give(Exited(None, 9, 0.5, 4096, True, starved=True))
    play.sleep(0.1)
    [ended] = play.take_said("ended")
    assert ended["reason"] == "The kernel killed it: it needed more memory than the node allows."


def test_what_every_process_of_a_command_used_is_summed_and_its_largest_told(play):
    play.run("a", "b")
    play.give(Exited(0, None, 0.5, 4096, False))
    play.give(Swept(2, 0.25, 1 << 20))
    play.sleep(0.01)
    play.give(Swept(0, 0.125, 8192))
    play.give(Exited(0, None, 0.0625, 1024, True))
    play.sleep(0.1)
    first, second = play.take_said("ended")
    assert (first["cpu_s"], first["max_rss_bytes"]) == (0.875, 1 << 20)
    assert (second["cpu_s"], second["max_rss_bytes"]) == (0.0625, 1024), "nothing of the one before"


@pytest.mark.parametrize(
    ("count", "shown"),
    [(1 << 30, "1 GiB"), (3 << 29, "1.5 GiB"), (100 << 20, "100 MiB"), (1536, "1.5 KiB"), (7, "7 bytes")],
)
def test_bytes_are_shown_as_people_write_them(count, shown):
    assert _bytes_shown(count) == shown
