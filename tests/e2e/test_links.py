"""Keepers as the agent sees them: who may speak, who is buried, and what is known of them in the end."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from agentd.containment import Containment, boot_identity
from agentd.dialogue import AckReports, ItemEnded, ItemStarted, KeeperHello, Ping, Pong, Retire, RunItems, Template
from agentd.events import Event, ForgetKeeper, KeeperDead, KeeperSaid, KillKeeper, StartKeeper, SurveyKeeper
from agentd.files import NodeFiles
from agentd.links import Links
from agentd.records import Purpose
from agentd.spawn import Starter
from wire.log import daemon_log

pytestmark = pytest.mark.e2e
PATIENCE_S = 30.0
BOOT = boot_identity()
START = StartKeeper("k1", "j-1", Purpose.TASKS)
SHELL = Template(
    id="t", argv=["sh", "-c", 0], env={"PATH": "/usr/bin:/bin"}, timeout_s=None, stop_signal=15, stop_grace_s=1.0,
    leave_running=False, leased=False,
)  # fmt: skip


class Ears:
    """Links, and what they say."""

    def __init__(self, root: Path) -> None:
        self.files = NodeFiles(str(root))
        self.files.make_job("j-1", (), {})
        self.agent = self.files.agent_directory
        self._send, self._heard = trio.open_memory_channel[Event](1000)
        containment = Containment(self.files.root, BOOT, None)
        self.starter = Starter(self.agent, BOOT, containment, idle_exit_s=5.0)
        self.links = Links(self.starter, self.agent, self.files.workitems, BOOT, self._send.send, daemon_log("test"))

    async def hear(self, kind: type) -> object:
        """The next event, or message of a keeper, of this kind; others before it are dropped."""
        with trio.fail_after(PATIENCE_S):
            async for event in self._heard:
                said = event.said if isinstance(event, KeeperSaid) else event
                if isinstance(said, kind):
                    return said
        raise AssertionError("nothing is said any more")

    async def started(self) -> KeeperHello:
        self.links.order(START)
        hello = await self.hear(KeeperHello)
        assert isinstance(hello, KeeperHello)
        return hello

    def run(self, key: str, script: str) -> None:
        self.links.say([("k1", SHELL), ("k1", RunItems(items=[(key, "t", [script], f"j-1/{key}")]))])

    def connection(self) -> socket.socket:
        stranger = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stranger.settimeout(PATIENCE_S)
        stranger.connect(str(self.starter.door / "keepers.sock"))
        return stranger

    async def hung_up_on(self, content: bytes) -> bool:
        """Whether a connection that says this is closed."""
        with self.connection() as stranger:
            stranger.send(content)
            return await trio.to_thread.run_sync(stranger.recv, 100) == b""


@asynccontextmanager
async def listening(root: Path) -> AsyncIterator[Ears]:
    """Links that run; whatever keeper is left in the end is killed."""
    ears = Ears(root)
    async with trio.open_nursery() as nursery:
        await nursery.start(ears.links.run)
        yield ears
        nursery.cancel_scope.cancel()
    ears.starter.kill("k1", "j-1", ears.links.proof("k1"))
    ears.files.close()


async def test_a_keeper_is_started_told_and_buried_with_what_it_recorded(tmp_path: Path) -> None:
    async with listening(tmp_path) as ears:
        await ears.started()
        ears.run("one", "exit 3")
        ended = await ears.hear(ItemEnded)
        assert isinstance(ended, ItemEnded)
        assert (ended.key, ended.exit_code) == ("one", 3)
        ears.links.order(KillKeeper("k1", "j-1"))
        dead = await ears.hear(KeeperDead)
        assert isinstance(dead, KeeperDead)
        assert [(end.key, end.exit_code) for end in dead.ends] == [("one", 3)]
        assert ears.starter.record("k1").ended
        ears.links.order(ForgetKeeper("k1"))
        with trio.fail_after(PATIENCE_S):
            while ears.starter.record("k1").ended:
                await trio.lowlevel.checkpoint()


async def test_a_keeper_that_was_acked_and_retired_goes_by_itself(tmp_path: Path) -> None:
    async with listening(tmp_path) as ears:
        await ears.started()
        ears.run("one", "exit 3")
        ended = await ears.hear(ItemEnded)
        assert isinstance(ended, ItemEnded)
        ears.links.say([("k1", Retire(grace_s=0.0)), ("k1", AckReports(seq=ended.seq))])
        with trio.fail_after(5.0):
            assert await ears.hear(KeeperDead)


async def test_a_killed_keepers_running_command_is_named_and_dead(tmp_path: Path) -> None:
    async with listening(tmp_path) as ears:
        hello = await ears.started()
        ears.run("one", "sleep 1000")
        await ears.hear(ItemStarted)
        os.kill(hello.pid, signal.SIGKILL)
        dead = await ears.hear(KeeperDead)
        assert isinstance(dead, KeeperDead)
        assert dead.started == {"one"}
        assert Containment(ears.files.root, BOOT, None).alive("j-1") == 0


async def test_a_stopped_keeper_is_killed_when_the_core_says_so(tmp_path: Path) -> None:
    async with listening(tmp_path) as ears:
        hello = await ears.started()
        os.kill(hello.pid, signal.SIGSTOP)
        ears.links.order(KillKeeper("k1", "j-1"))
        assert await ears.hear(KeeperDead)


async def test_strangers_and_nonsense_are_hung_up_on_and_keepers_go_on(tmp_path: Path) -> None:
    hello = b'[{"op":"hello","version":1,"keeper":"%b","pid":1,"boot":"b","starttime":1}]'
    async with listening(tmp_path) as ears:
        await ears.started()
        for content in (b"x", b"[]", b"[{}]", b'[{"op":"pong","n":1}]', hello % b"k9", hello % b"k1", b"[" * 5000):
            assert await ears.hung_up_on(content), content
        ears.links.say([("k1", Ping(n=5))])
        assert await ears.hear(Pong) == Pong(n=5)


async def test_the_next_life_finds_a_keeper_by_its_process(tmp_path: Path) -> None:
    async with listening(tmp_path) as ears:
        await ears.started()
        ears.run("one", "sleep 1000")
        await ears.hear(ItemStarted)
        first = ears.links.proof("k1")
        ears.links.leave()
        nextlife = Links(ears.starter, ears.agent, ears.files.workitems, BOOT, ears._send.send, daemon_log("test"))
        async with trio.open_nursery() as nursery:
            await nursery.start(nextlife.run)
            nextlife.order(SurveyKeeper("k1", "j-1", Purpose.TASKS))
            hello = await ears.hear(KeeperHello)
            assert isinstance(hello, KeeperHello)
            assert hello.running == "one"
            assert nextlife.proof("k1") == first
            nursery.cancel_scope.cancel()


async def test_the_next_life_buries_a_keeper_that_died_meanwhile(tmp_path: Path) -> None:
    async with listening(tmp_path) as ears:
        hello = await ears.started()
        ears.run("one", "sleep 1000")
        await ears.hear(ItemStarted)
        ears.links.leave()
        os.kill(hello.pid, signal.SIGKILL)
        nextlife = Links(ears.starter, ears.agent, ears.files.workitems, BOOT, ears._send.send, daemon_log("test"))
        async with trio.open_nursery() as nursery:
            await nursery.start(nextlife.run)
            nextlife.order(SurveyKeeper("k1", "j-1", Purpose.TASKS))
            dead = await ears.hear(KeeperDead)
            assert isinstance(dead, KeeperDead)
            assert dead.started == {"one"}
            nursery.cancel_scope.cancel()
