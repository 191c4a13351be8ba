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

from agentd.boot import boot_identity
from agentd.containment import Containment
from agentd.dialogue import (
    AckReports,
    ItemEnded,
    ItemStarted,
    KeeperHello,
    Ping,
    Pong,
    Retire,
    RunItems,
    StopItem,
    Template,
)
from agentd.events import Event, ForgetKeeper, KeeperDead, KeeperSaid, KillKeeper, StartKeeper, SurveyKeeper
from agentd.files import NodeFiles
from agentd.links import Links
from agentd.records import Purpose
from agentd.spawn import AS_WE_ARE, Fence, Starter
from tests.e2e.keeper_play import USER
from tests.e2e.test_keeper_process import FENCES
from wire.log import daemon_log
from wire.messages import Outcome

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

    def __init__(self, root: Path, user: int | None = None) -> None:
        self.files = NodeFiles(str(root))
        self.files.make_job("j-1", (), {}, user=user)
        self.fence = AS_WE_ARE if user is None else Fence(user, private="j-1/private")
        self.agent = self.files.agent_directory
        self._send, self._heard = trio.open_memory_channel[Event](1000)
        containment = Containment(self.files.root, BOOT, None)
        self.starter = Starter(self.agent, BOOT, containment, idle_exit_s=5.0)
        self.links = self.life()

    def life(self) -> Links:
        """The shell of one life of the agent."""
        return Links(
            self.starter, self.agent, self.files.workitems, BOOT, self._send.send, daemon_log("test"),
            fence=lambda order: self.fence,
        )  # fmt: skip

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
async def listening(root: Path, user: int | None = None) -> AsyncIterator[Ears]:
    """Links that run; whatever keeper is left in the end is killed. `user`: whom the job runs as."""
    ears = Ears(root, user)
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
        pong = b'[{"op":"pong","n":1}]'
        no_text = hello % b"\xff"
        for content in (b"x", b"[]", b"[{}]", pong, no_text, hello % b"k9", hello % b"k1", b"[" * 5000):
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
        nextlife = ears.life()
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
        nextlife = ears.life()
        async with trio.open_nursery() as nursery:
            await nursery.start(nextlife.run)
            nextlife.order(SurveyKeeper("k1", "j-1", Purpose.TASKS))
            dead = await ears.hear(KeeperDead)
            assert isinstance(dead, KeeperDead)
            assert dead.started == {"one"}
            nursery.cancel_scope.cancel()


# ---- jobs with users of their own

needs_users = pytest.mark.skipif(not FENCES, reason="users of jobs and their namespaces need root")
HELLO = b'{"op":"hello","version":1,"keeper":"k1","pid":%d,"boot":"b","starttime":%d}'
FORGED = b'{"op":"ended","seq":1,"key":"one","outcome":"exited","exit_code":0}'


def forge(ears: Ears, user: int) -> bytes:
    """What a process of this user hears that somehow came through the door, and says as the keeper that the command
    succeeded."""
    proof = ears.links.proof("k1")
    assert proof is not None
    door = os.open(ears.starter.door, os.O_RDONLY)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as forger:
            forger.connect(f"/proc/self/fd/{door}/keepers.sock")
            forger.send(b"[" + HELLO % (proof.pid, proof.starttime) + b"," + FORGED + b"]")
            os.write(writing, forger.recv(100) or b"hung up")
        os._exit(0)
    os.close(writing)
    os.close(door)
    with os.fdopen(reading, "rb") as file:
        heard = file.read()
    os.waitpid(child, 0)
    return heard


@needs_users
@pytest.mark.parametrize("user", [USER, USER + 1, 0], ids=["its own", "another", "root"])
async def test_t13_a_task_that_calls_itself_its_keeper_is_refused(tmp_path: Path, user: int) -> None:
    async with listening(tmp_path, USER) as ears:
        await ears.started()
        ears.run("one", "sleep 1000")
        await ears.hear(ItemStarted)
        assert await trio.to_thread.run_sync(forge, ears, user) == b"hung up"
        ears.links.say([("k1", Ping(n=5)), ("k1", StopItem(key="one", reason="enough"))])
        ended = await ears.hear(ItemEnded)
        assert isinstance(ended, ItemEnded)
        assert (ended.outcome, ended.exit_code) == (Outcome.KILLED, None)


@needs_users
async def test_t13_the_keepers_own_process_is_refused_as_another_user_than_the_one_it_was_given(tmp_path: Path) -> None:
    async with listening(tmp_path, USER) as ears:
        await ears.started()
        ears.links.leave()
        (tmp_path / ".agent/proofs/k1").write_text("{} {} {} {}".format(*noted(ears)[:3], USER + 1))
        nextlife = ears.life()
        async with trio.open_nursery() as nursery:
            await nursery.start(nextlife.run)
            nextlife.order(SurveyKeeper("k1", "j-1", Purpose.TASKS))
            with trio.move_on_after(1.0):
                await ears.hear(KeeperHello)
                raise AssertionError("it was believed")
            nursery.cancel_scope.cancel()


def noted(ears: Ears) -> list[str]:
    return (Path(ears.agent) / "proofs" / "k1").read_text().split()


@needs_users
async def test_the_next_life_knows_a_keeper_of_another_user(tmp_path: Path) -> None:
    async with listening(tmp_path, USER) as ears:
        await ears.started()
        assert noted(ears)[3] == str(USER)
        ears.run("one", "sleep 1000")
        await ears.hear(ItemStarted)
        ears.links.leave()
        ears.fence = AS_WE_ARE  # what the job's user was is noted
        nextlife = ears.life()
        async with trio.open_nursery() as nursery:
            await nursery.start(nextlife.run)
            nextlife.order(SurveyKeeper("k1", "j-1", Purpose.TASKS))
            hello = await ears.hear(KeeperHello)
            assert isinstance(hello, KeeperHello)
            assert hello.running == "one"
            nextlife.order(KillKeeper("k1", "j-1"))
            dead = await ears.hear(KeeperDead)
            assert isinstance(dead, KeeperDead)
            assert dead.started == {"one"}
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("user", [None, pytest.param(USER, marks=needs_users)], ids=["same", "of the job"])
async def test_a_keeper_that_was_not_noted_is_known_by_its_record_and_nobody_else_is(
    tmp_path: Path, user: int | None
) -> None:
    async with listening(tmp_path, user) as ears:
        hello = await ears.started()
        (Path(ears.agent) / "proofs" / "k1").unlink()
        ears.links.leave()
        nextlife = ears.life()
        async with trio.open_nursery() as nursery:
            await nursery.start(nextlife.run)
            assert await ears.hung_up_on(b"[" + HELLO % (os.getpid(), 1) + b"]")
            nextlife.order(SurveyKeeper("k1", "j-1", Purpose.TASKS))
            again = await ears.hear(KeeperHello)
            assert isinstance(again, KeeperHello)
            assert again.pid == hello.pid
            nursery.cancel_scope.cancel()


@needs_users
async def test_a_keeper_that_can_not_be_fenced_is_dead_with_the_reason(tmp_path: Path) -> None:
    async with listening(tmp_path, USER) as ears:
        ears.fence = Fence(USER, private="j-1/nobody/private")
        (tmp_path / "workitems/j-1/nobody").symlink_to("/etc")
        ears.links.order(START)
        dead = await ears.hear(KeeperDead)
        assert isinstance(dead, KeeperDead)
        assert dead.reason == "Could not make the job's private directory nobody: Not a directory."
