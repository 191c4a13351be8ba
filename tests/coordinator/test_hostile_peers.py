"""A real coordinator at a TLS port, in this process, and peers that mean it harm.

Each loses its own connection, and the others are answered meanwhile.
"""

from __future__ import annotations

import os
import resource
import secrets
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
import trio

from coordinator import admission, budget, joining, server, work
from coordinator.config import Config
from coordinator.daemon import serve_state
from coordinator.model import JOIN_AGAIN_S, JOINS
from coordinator.records import ReportTaken
from tests.coordinator.playbook import Play, job, phase_end, prep, tasks
from tests.wire.corpus import BOMBS, Dice, damaged
from wire import codec, limits, thin
from wire import messages as m
from wire.address import SOCKET_NAME
from wire.connection import Connection, State
from wire.enroll import join
from wire.identity import Identity
from wire.invitation import Invitation, token_digest
from wire.keys import make_key, make_request
from wire.messages import PROTOCOL_VERSION, Goodbye, Hello, JobList, Reply, Role, Welcome
from wire.secure import TlsStream, connect_tls
from wire.stream import Session, SessionRefused, opened
from wire.tls import client_context

MIB = 1024 * 1024


class Daemon:
    """A coordinator, and the identities that it gave."""

    def __init__(self, state: Path, port: int) -> None:
        self.path = str(state / SOCKET_NAME)
        self.port = port

    async def identity(self, role: Role, name: str) -> Identity:
        """By a token and a join string, as anybody gets one."""
        secret = secrets.token_urlsafe(32)
        whom = None if role is Role.NODE else name
        make = partial(self._locally, "TokenCreate", digest=token_digest(secret), role=role.value, name=whom)
        made = await trio.to_thread.run_sync(make)
        return await join("127.0.0.1", self.port, Invitation(made["authority"], secret), make_key(), name)

    def _locally(self, kind: str, **fields: object) -> dict[str, str]:
        with thin.connect(self.path) as session:
            answer: dict[str, str] = session.call(kind, **fields)
            return answer

    def known(self) -> list[object]:
        """All that an administrator sees of tokens, identities, nodes, pools and jobs."""
        with thin.connect(self.path) as session:
            return [session.call(f"{kind}List") for kind in ("Token", "Identity", "Node", "Pool", "Job")]

    async def dial(self, identity: Identity) -> TlsStream:
        return await connect_tls("127.0.0.1", self.port, client_context(identity.authority, identity))

    async def socket(self, source: str = "127.0.0.1") -> trio.SocketStream:
        """A bare connection, from any address of the loopback network."""
        made = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        await made.bind((source, 0))
        await made.connect(("127.0.0.1", self.port))
        return trio.SocketStream(made)


@asynccontextmanager
async def listening(state: Path):
    """A coordinator that listens at a TLS port."""
    said: list[str] = []
    ready, over = trio.Event(), trio.Event()

    def announce(line: str) -> None:
        said.append(line)
        ready.set()

    async def run() -> None:
        await serve_state(state, Config(), listen="127.0.0.1:0", announce=announce)
        over.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await ready.wait()
        yield Daemon(state, int(said[0].rpartition(":")[2]))
        os.kill(os.getpid(), signal.SIGTERM)
        with trio.fail_after(20):
            await over.wait()


@contextmanager
def no_slower_than(seconds: float) -> Iterator[None]:
    with trio.fail_after(seconds):
        yield


async def answered(session: Session, number: int = 1) -> None:
    session.send(JobList(number))
    answer = await session.receive()
    assert isinstance(answer, Reply)
    assert answer.request == number


async def rest_of(stream: trio.abc.ReceiveStream) -> int:
    """Bytes until the end."""
    count = 0
    with suppress(trio.BrokenResourceError):
        while piece := await stream.receive_some(MIB):
            count += len(piece)
    return count


# ---- before they have said who they are


async def test_t6_hundreds_that_say_nothing_or_half_a_word_keep_nobody_out(tmp_path, monkeypatch):
    for patience in ("CHANCE_S", "HANDSHAKE_S", "QUEUE_S"):  # what they hold, they hold
        monkeypatch.setattr(limits, patience, 600.0)
    async with listening(tmp_path) as there:
        alice = await there.identity(Role.USER, "alice")
        async with opened(await there.dial(alice), Role.USER) as before:
            strangers = [await there.socket(f"127.0.0.{2 + number % 2}") for number in range(300)]
            for number, stranger in enumerate(strangers[::2]):
                await stranger.send_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[: number % 12])
            with no_slower_than(60):
                async with opened(await there.dial(alice), Role.USER) as newcomer:
                    await answered(newcomer)
            await answered(before)
            for stranger in strangers:
                await stranger.aclose()


async def test_t6_from_one_address_the_longest_silent_make_room(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "HANDSHAKE_S", 600.0)
    monkeypatch.setattr(limits, "QUEUE_S", 600.0)
    async with listening(tmp_path) as there:
        alice = await there.identity(Role.USER, "alice")
        strangers = [await there.socket() for _ in range(limits.MAX_UNGREETED // 4)]
        with no_slower_than(60):
            async with opened(await there.dial(alice), Role.USER) as newcomer:
                await answered(newcomer)
        assert await strangers[0].receive_some() == b""
        for stranger in strangers:
            await stranger.aclose()


async def test_t6_what_strangers_cause_is_logged_sparingly(tmp_path, capfd):
    async with listening(tmp_path) as there:
        for _ in range(300):
            async with await there.socket() as stranger:
                await stranger.send_all(b"GET / HTTP/1.1\r\n\r\n")
                await rest_of(stranger)
    lines = [line for line in capfd.readouterr().err.splitlines() if "refused" in line]
    assert 50 <= len(lines) <= 150  # of three hundred
    assert "it speaks HTTP and not TLS" in lines[0]


@pytest.mark.parametrize("seed", range(2))
async def test_t6_whatever_a_stranger_asks_changes_nothing(tmp_path, seed):
    """Peers without a certificate, guessed tokens, damaged requests, messages of every kind."""
    dice = Dice(f"stranger {seed}")
    request = make_request(make_key())
    async with listening(tmp_path) as there:
        alice = await there.identity(Role.USER, "alice")
        known = await trio.to_thread.run_sync(there.known)
        answers: Counter[str] = Counter()
        for _ in range(60):
            content = damaged(dice, request) if dice.random.random() < 0.7 else request
            question: m.Message = m.Enroll(secrets.token_urlsafe(32), content, dice.value(str))
            match dice.random.randrange(5):
                case 0:
                    question = m.AskAuthority()
                case 1:
                    question = dice.sound()
            body = codec.encode_value([0, 0, question])
            if dice.random.random() < 0.3:
                body = damaged(dice, body)
            async with await connect_tls("127.0.0.1", there.port, client_context(alice.authority)) as stream:
                other = Other(stream)
                with suppress(trio.BrokenResourceError):
                    await stream.send_all(codec.HEADER.pack(len(body)) + body)
                    await stream.transport.send_eof()
                    other.connection.state = State.ENROLLING if isinstance(question, m.Enroll) else State.ASKING
                    answers[type(await other.hear()).__name__] += 1
        assert await trio.to_thread.run_sync(there.known) == known
        assert answers["Goodbye"] > 20
        assert answers["Authority"] > 0
        assert answers["Enrolled"] == answers["Welcome"] == 0
        async with opened(await there.dial(alice), Role.USER) as session:
            await answered(session)


# ---- members that flood


async def test_t6_one_person_has_so_many_connections_and_others_have_theirs(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "MAX_SESSIONS_OF_ONE", 3)
    async with listening(tmp_path) as there, trio.open_nursery() as nursery:
        alice, bob = [await there.identity(Role.USER, name) for name in ("alice", "bob")]
        held = 0

        async def hold() -> None:
            nonlocal held
            async with opened(await there.dial(alice), Role.USER) as session:
                await answered(session)
                held += 1
                await session.receive()

        for count in (1, 2, 3):
            nursery.start_soon(hold)
            while held < count:
                await trio.testing.wait_all_tasks_blocked()
                async with opened(await there.dial(bob), Role.USER) as session:
                    await answered(session)
        async with opened(await there.dial(alice), Role.USER) as fourth:
            with no_slower_than(60):
                assert await fourth.receive() is None
            assert fourth.end is not None
            assert "alice has 3 connections already" in fourth.end.reason
        async with opened(await there.dial(bob), Role.USER) as session:
            await answered(session)
        nursery.cancel_scope.cancel()


async def test_t6_who_has_had_his_share_waits_on_each_of_his_connections_and_nobody_else_does(tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "AT_ONCE_S", 0.0)
    monkeypatch.setattr(budget, "SHARE", 1e-9)  # one request is enough for a pause without end
    monkeypatch.setattr(budget, "LONGEST_S", 1e9)
    async with listening(tmp_path) as there, trio.open_nursery() as nursery:
        names = ("mallory", "alice", "bob", "carol")
        mallory, *others = [await there.identity(Role.USER, name) for name in names]
        again = 0

        async def ask_again(session: Session) -> None:
            nonlocal again
            await answered(session, 2)
            again += 1

        async with (
            opened(await there.dial(mallory), Role.USER) as one,
            opened(await there.dial(mallory), Role.USER) as two,
        ):
            await answered(one)
            nursery.start_soon(ask_again, one)
            nursery.start_soon(ask_again, two)
            for other in others:
                async with opened(await there.dial(other), Role.USER) as session:
                    with no_slower_than(60):
                        await answered(session)
            assert again == 0
            assert await trio.to_thread.run_sync(there.known), "who owns the coordinator never waits"
            nursery.cancel_scope.cancel()


async def test_who_has_waited_for_his_share_is_answered(tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "AT_ONCE_S", 0.0)
    async with listening(tmp_path) as there:
        alice = await there.identity(Role.USER, "alice")
        async with opened(await there.dial(alice), Role.USER) as session:
            for number in range(1, 20):
                await answered(session, number)


async def test_t6_large_and_evil_messages_cost_their_sender_its_session_and_the_daemon_little(tmp_path):
    async with listening(tmp_path) as there:
        alice, mallory = [await there.identity(Role.USER, name) for name in ("alice", "mallory")]
        async with opened(await there.dial(alice), Role.USER) as good:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            for number, make in enumerate(BOMBS.values(), 1):
                async with await there.dial(mallory) as stream:
                    connection = Connection(Role.USER)
                    await stream.send_all(connection.send(Hello(PROTOCOL_VERSION, Role.USER)))
                    while (welcome := connection.next_event()) is None:
                        connection.receive_bytes(await stream.receive_some())
                    assert isinstance(welcome, Welcome)
                    content = make().replace(b"\xa5Reply", b"\xa6Submit", 1)[: limits.MAX_FRAME]
                    with suppress(trio.BrokenResourceError):
                        await stream.send_all(codec.HEADER.pack(len(content)) + content)
                    await rest_of(stream)
                await answered(good, number)
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before < 128 * MIB


async def test_f33_who_asks_and_does_not_read_is_cut_and_the_others_are_answered(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(limits, "SEND_S", 1.0)
    jobs = [{"name": f"j{number}", "pool": "p", "groups": []} for number in range(1000)]
    document = {"format": 1, "pools": [{"name": "p"}], "jobs": jobs}
    async with listening(tmp_path) as there:
        alice, mallory = [await there.identity(Role.OPERATOR, name) for name in ("alice", "mallory")]

        def submit() -> None:
            with thin.connect(there.path) as session:
                session.submit(document, "s")

        await trio.to_thread.run_sync(submit)
        async with opened(await there.dial(alice), Role.OPERATOR) as good:
            stream = await there.dial(mallory)
            connection = Connection(Role.OPERATOR)
            await stream.send_all(connection.send(Hello(PROTOCOL_VERSION, Role.OPERATOR)))
            while connection.next_event() is None:
                connection.receive_bytes(await stream.receive_some())
            with suppress(trio.BrokenResourceError):
                await stream.send_all(b"".join(connection.send(JobList(number)) for number in range(150)))
            said, number = "", 0
            with no_slower_than(60):
                while "the peer does not read" not in said and "the peer took nothing" not in said:
                    number += 1
                    await answered(good, number)
                    said += capfd.readouterr().err
                received = await rest_of(stream)
            await stream.aclose()
            await answered(good, number + 1)
        assert 0 < received < 20 * MIB


# ---- other versions


class Other:
    """A peer of another release: the frames are the same, the words are not."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.connection = Connection(Role.USER)

    async def hear(self) -> m.AnyMessage | None:
        while (message := self.connection.next_event()) is None:
            content = await self.stream.receive_some()
            if not content:
                return None
            self.connection.receive_bytes(content)
        return message


@pytest.mark.parametrize("version", [0, PROTOCOL_VERSION + 1, 2**40])
async def test_f34_a_peer_of_another_version_is_refused_with_both_numbers_and_what_to_do(tmp_path, version):
    async with listening(tmp_path) as there:
        alice = await there.identity(Role.USER, "alice")
        async with await there.dial(alice) as stream:
            other = Other(stream)
            await stream.send_all(codec.frame(0, 0, codec.encode_message(Hello(version, Role.USER))))
            farewell = await other.hear()
            assert isinstance(farewell, Goodbye)
            assert farewell.error
            assert f"version {version} " in farewell.reason
            assert f"version {PROTOCOL_VERSION}" in farewell.reason
            assert "install the same release on both sides" in farewell.reason
        async with opened(await there.dial(alice), Role.USER) as session:
            await answered(session)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({"kind": "JobPause", "request": 1, "job": "j"}, "unknown kind 'JobPause'"),
        ({"kind": "JobList", "request": 1, "skip": 0, "sorted": True}, "unknown field `sorted`"),
        ({"kind": "JobShow", "request": 1}, "missing required field `job`"),
    ],
    ids=["a new message", "a new field", "a field that went"],
)
async def test_f34_what_another_release_says_is_refused_and_never_misread(tmp_path, content, why):
    async with listening(tmp_path) as there:
        alice = await there.identity(Role.USER, "alice")
        async with await there.dial(alice) as stream:
            other = Other(stream)
            await stream.send_all(other.connection.send(Hello(PROTOCOL_VERSION, Role.USER)))
            welcome = await other.hear()
            assert isinstance(welcome, Welcome)
            body = codec.encode_value([welcome.epoch, 1, content])
            await stream.send_all(codec.HEADER.pack(len(body)) + body)
            farewell = await other.hear()
            assert isinstance(farewell, Goodbye)
            assert why in farewell.reason


async def test_f34_a_coordinator_of_another_version_is_refused_by_its_agents():
    near, far = trio.testing.memory_stream_pair()
    await far.send_all(codec.frame(0, 0, codec.encode_message(Welcome(PROTOCOL_VERSION + 1, 7))))
    with pytest.raises(SessionRefused, match=f"version {PROTOCOL_VERSION + 1} .*install the same release"):
        async with opened(near, Role.NODE):
            pass


# ---- nodes that are none


def test_t6_a_node_that_never_joins_does_not_stay():
    play = Play()
    epoch = play.open(Role.NODE, "n1")
    late = play.node("n2")
    play.wait(admission.JOIN_S - 1)
    assert epoch in play.core.sessions
    play.wait(2)
    assert epoch not in play.core.sessions
    assert late.epoch in play.core.sessions


def test_t6_a_node_that_joins_again_and_again_as_another_fills_no_ledger():
    """Each life of an agent is kept; nobody has so many."""
    play = Play()
    node = play.node("n1")
    for number in range(10 * JOINS):
        node.drop()
        node.life = f"life {number}"
        node.join()
    assert len(play.kept) <= 2 * JOINS + 5
    assert node.epoch is None
    assert "joins again and again" in node.closed[-1]
    play.wait(2 * JOIN_AGAIN_S)
    node.life = "the last one"
    assert node.join().joined


def test_t6_a_node_that_names_ever_new_pools_fills_no_ledger(monkeypatch):
    monkeypatch.setattr(joining, "MAX_UNDECLARED", 5)
    play = Play()
    nodes = [play.node(f"n{number}", pool=f"pool{number}") for number in range(7)]
    assert [node.joined for node in nodes] == [True] * 5 + [False] * 2
    nodes[0].drop()
    nodes[0].pool = "another"
    assert not nodes[0].join().joined
    assert "others that no file declares" in nodes[0].heard(m.JoinRefused)[-1].reason
    assert len(play.core.cluster.pools) == 5


def test_t6_attempts_of_a_preparation_without_end_fill_no_ledger(monkeypatch):
    monkeypatch.setattr(work, "MAX_PRINTED", 5)
    monkeypatch.setattr(work, "MAX_ENDS", 20)
    play = Play()
    node = play.node("n1")
    name = play.submit(job("j", tasks("t"), preparation=prep(retries=1_000_000)))

    def said(attempt: int, *, final: bool = False) -> None:
        end = phase_end(name, 1, m.Phase.PREPARATION, False, attempt=attempt, final=final, stdout_tail=bytes(65_536))
        node.report(phases=[end])

    for attempt in range(100):
        said(attempt % 50)
    kept = [end for record in play.kept if isinstance(record, ReportTaken) for end in record.phases]
    assert len(kept) == 20
    assert [bool(end.stdout_tail) for end in kept] == [True] * 5 + [False] * 15
    assert node.outbox == []  # each was acknowledged all the same
    for _ in range(3):
        said(101, final=True)
    kept = [end for record in play.kept if isinstance(record, ReportTaken) for end in record.phases]
    assert [(end.final, bool(end.stdout_tail)) for end in kept[20:]] == [(True, True)]
