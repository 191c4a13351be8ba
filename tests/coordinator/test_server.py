"""The coordinator's shell around its real core, in this process: sessions, uploads, what is refused, how it stops."""

from __future__ import annotations

import hashlib
import os
import signal
import struct
from contextlib import asynccontextmanager
from pathlib import Path

import msgpack
import pytest
import trio
import trio.testing

from coordinator.config import CertificateConfig, Config, ConfigError, LocalConfig, name_of, read_config
from coordinator.daemon import serve, serve_state
from wire import codec, limits, thin
from wire.address import SOCKET_NAME
from wire.ledger import StoreHeld
from wire.messages import PROTOCOL_VERSION, Heartbeat, Hello, JobList, Join, Joined, Role
from wire.stream import connect_unix, opened

PEERS = frozenset(Role) - {Role.COORDINATOR}


@asynccontextmanager
async def served(state: Path, config: Config | None = None):
    """A coordinator of `state`, ready; stopped as SIGTERM stops it."""
    said: list[str] = []
    ready, over = trio.Event(), trio.Event()

    def announce(line: str) -> None:
        said.append(line)
        ready.set()

    async def run() -> None:
        await serve_state(state, config or Config(), announce=announce)
        over.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await ready.wait()
        assert said == [f"coordinator: ready at {state / SOCKET_NAME}"]
        yield str(state / SOCKET_NAME)
        os.kill(os.getpid(), signal.SIGTERM)
        with trio.fail_after(60):
            await over.wait()


async def aside(act, *arguments):
    """A blocking client beside the coordinator."""
    return await trio.to_thread.run_sync(act, *arguments)


async def test_a_person_is_answered_and_a_stop_leaves_no_socket(tmp_path):
    async with served(tmp_path) as path:

        def ask() -> object:
            with thin.connect(path) as session:
                assert session.call("NodeList") == []
                with pytest.raises(thin.ThinError) as raised:
                    session.call("JobShow", job="nothing")
                assert raised.value.code == "unknown"
                return session.call("JobList")

        assert await aside(ask) == []
    assert not (tmp_path / SOCKET_NAME).exists()


async def test_a_node_joins_and_whoever_leaves_uncleanly_disturbs_nobody(tmp_path):
    async with served(tmp_path) as path, opened(await connect_unix(path), Role.NODE) as node:
        node.send(Join(pool="p", node="n1", incarnation="i", boot="b", slots=2))
        assert isinstance(await node.receive(), Joined)
        for content in (b"", b"\xff" * 100, struct.pack(">I", 2**32 - 1), codec.frame(0, 0, b"\xc0")):
            stream = await connect_unix(path)
            await stream.send_all(content) if content else None
            await stream.aclose()
        node.send(Heartbeat(1))
        answer = await node.receive()
        while type(answer).__name__ != "HeartbeatAck":
            answer = await node.receive()


async def test_a_stop_tells_every_session_why(tmp_path):
    async with trio.open_nursery() as nursery:
        ended: list[str] = []

        async def stay(path: str, there: trio.Event) -> None:
            async with opened(await connect_unix(path), Role.USER) as session:
                there.set()
                assert await session.receive() is None
                assert session.end is not None
                ended.append(session.end.reason)

        async with served(tmp_path) as path:
            there = [trio.Event() for _ in range(3)]
            for event in there:
                nursery.start_soon(stay, path, event)
            for event in there:
                await event.wait()
    assert ended == ["the coordinator stops"] * 3


async def test_sessions_are_numbered_once_over_restarts(tmp_path):
    epochs = []
    for _ in range(2):
        async with served(tmp_path) as path:
            for _ in range(3):
                async with opened(await connect_unix(path), Role.USER) as session:
                    epochs.append(session.epoch)
    assert len(set(epochs)) == 6
    assert epochs == sorted(epochs)


async def test_a_protocol_error_closes_that_session_with_its_reason_and_no_other(tmp_path):
    async with (
        served(tmp_path) as path,
        opened(await connect_unix(path), Role.USER) as other,
        opened(await connect_unix(path), Role.NODE) as wrong,
    ):
        await wrong._stream.send_all(codec.frame(wrong.epoch, 1, codec.encode_message(JobList(1))))
        assert await wrong.receive() is None
        assert wrong.end is not None
        assert "a JobList may not be sent by node" in wrong.end.reason
        other.send(JobList(1))
        assert (await other.receive()).request == 1


async def test_a_second_coordinator_on_the_directory_is_refused(tmp_path):
    async with served(tmp_path) as path:
        with pytest.raises(StoreHeld, match="in use by process"):
            await serve_state(tmp_path, Config(), announce=lambda line: None)
        async with opened(await connect_unix(path), Role.USER):
            pass


# ---- uploads


def large_document(size: int = 1_500_000) -> dict:
    return {"format": 1, "jobs": [], "pools": [], "surprise": "x" * size}


async def test_an_uploaded_document_reaches_the_core_and_is_not_kept(tmp_path):
    async with served(tmp_path) as path:

        def submit() -> thin.ThinError:
            with thin.connect(path) as session, pytest.raises(thin.ThinError) as raised:
                session.submit(large_document(), "s-1")
            return raised.value

        refusal = await aside(submit)
    assert refusal.code == "invalid"
    assert "surprise" in refusal.message + str(refusal.diagnostics)  # said of the document: the core saw it
    assert [entry for entry in (tmp_path / "blobs").rglob("*") if entry.is_file()] == []


async def test_an_upload_goes_on_where_it_was_before_a_kill(tmp_path):
    content = msgpack.packb(large_document())
    digest = hashlib.sha256(content).hexdigest()

    def some(path: str) -> int:
        with thin.connect(path) as session:
            body = session.call(
                "Upload", digest=digest, offset=0, size=len(content), content=content[: limits.MAX_CHUNK]
            )
            return body["held"]

    def rest(path: str) -> list[int]:
        with thin.connect(path) as session:
            held = [session.call("Upload", digest=digest, offset=0, size=len(content), content=b"")["held"]]
            session.upload(content)
            held.append(session.call("Upload", digest=digest, offset=0, size=len(content), content=b"")["held"])
            return held

    async with served(tmp_path) as path:
        assert await aside(some, path) == limits.MAX_CHUNK
    async with served(tmp_path) as path:
        assert await aside(rest, path) == [limits.MAX_CHUNK, len(content)]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"digest": "0" * 64}, "upload the document again"),
        ({"digest": "../../etc/passwd"}, "64 hexadecimal digits"),
        ({"digest": "0" * 64, "document": {}}, "not both"),
    ],
)
async def test_a_submission_that_names_no_upload_is_refused(tmp_path, fields, reason):
    async with served(tmp_path) as path:

        def submit() -> thin.ThinError:
            with thin.connect(path) as session, pytest.raises(thin.ThinError) as raised:
                session.call("Submit", submission="s-1", **fields)
            return raised.value

        refusal = await aside(submit)
    assert refusal.code == "invalid"
    assert reason in refusal.message


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"\xc1" * 10, "msgpack"), (msgpack.packb([1]), "is a map"), (b"\x91" * 5000 + b"\xc0", "msgpack")],
    ids=["no msgpack", "no map", "too deep"],
)
async def test_an_upload_that_is_no_document_is_refused(tmp_path, content, reason):
    async with served(tmp_path) as path:

        def submit() -> thin.ThinError:
            with thin.connect(path) as session:
                digest = session.upload(content)
                with pytest.raises(thin.ThinError) as raised:
                    session.call("Submit", submission="s-1", digest=digest)
                assert session.call("JobList") == []
            return raised.value

        refusal = await aside(submit)
    assert refusal.code == "invalid"
    assert reason in refusal.message


async def test_a_bad_piece_is_refused_and_the_session_goes_on(tmp_path):
    async with served(tmp_path) as path:

        def upload() -> None:
            with thin.connect(path) as session:
                with pytest.raises(thin.ThinError, match="within its upload"):
                    session.call("Upload", digest="0" * 64, offset=5, size=3, content=b"x")
                assert session.call("JobList") == []

        await aside(upload)


# ---- who is who


def test_the_own_uid_and_root_may_be_anything_and_others_nothing():
    config = Config()
    assert config.roles_of(1000, own=1000) == PEERS
    assert config.roles_of(0, own=1000) == PEERS
    assert config.roles_of(1001, own=1000) == frozenset()


def test_a_configured_user_may_be_what_was_set_and_less():
    nobody = name_of(65534)
    expected = {
        Role.USER: {Role.USER},
        Role.OPERATOR: {Role.USER, Role.OPERATOR},
        Role.ADMIN: {Role.USER, Role.OPERATOR, Role.ADMIN},
        Role.NODE: {Role.NODE},
    }
    for role, allowed in expected.items():
        for name in (nobody, "uid:65534"):
            assert Config(LocalConfig(roles={name: role})).roles_of(65534, own=1000) == allowed


def test_members_of_the_group_are_what_it_is_unless_more_is_said_of_them():
    config = Config(LocalConfig("batch", Role.OPERATOR, {"uid:1002": Role.USER}))
    assert config.roles_of(1001, 1000, groups={7}, opened=7) == {Role.USER, Role.OPERATOR}
    assert config.roles_of(1002, 1000, groups={7}, opened=7) == {Role.USER}
    assert config.roles_of(1001, 1000, groups={8}, opened=7) == frozenset()
    assert config.roles_of(1001, 1000, groups={7}, opened=None) == frozenset()


def test_a_uid_without_a_name_has_one():
    assert name_of(3_999_999_999) == "uid:3999999999"


def test_a_configuration_is_read_and_anything_unknown_in_it_refused(tmp_path):
    file = tmp_path / "coordinator.toml"
    file.write_text(
        '[local]\ngroup = "batch"\n[local.roles]\nalice = "operator"\n'
        '[pools.render]\nusers = ["bob"]\n[certificates]\nnode = "12h"\n'
    )
    config = read_config(file)
    assert config.local == LocalConfig("batch", Role.USER, {"alice": Role.OPERATOR})
    assert config.certificates == CertificateConfig(node="12h")
    assert (config.certificates.node_s, config.certificates.people_s) == (43_200, 30 * 86_400)
    assert config.policy.may_submit("bob", Role.USER, "render")
    assert not config.policy.may_submit("eve", Role.USER, "render")
    for text, reason in [
        ("[sockets]\n", "sockets"),
        ('[local]\ngroup = "g"\n[local.roles]\nalice = "king"\n', "king"),
        ('[local]\ngroup = "g"\n[local.roles]\nalice = "coordinator"\n', "no role"),
        ('[local]\ngroup = "g"\ngroup_role = "coordinator"\n', "no role"),
        ('[local.roles]\nalice = "user"\n', "opens to none of them"),
        ('[certificates]\nnode = "soon"\n', "no duration"),
        ('[certificates]\npeople = "100ms"\n', "no duration"),
        ("[pools.p]\nuser = []\n", r"\[pools\.\*\] has no setting `user`: did you mean `users`\?"),
        ("x = \n", "is no TOML: invalid value"),
        ("x" * 2_000_000, "longer than"),
    ]:
        file.write_text(text)
        with pytest.raises(ConfigError, match=reason):
            read_config(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"coordinator\.toml"):
        read_config(file)
    with pytest.raises(ConfigError, match="can't be read"):
        read_config(tmp_path / "missing")


async def test_a_group_that_does_not_exist_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"`no-such-group` in \[local\] does not exist"):
        await serve_state(tmp_path, Config(LocalConfig("no-such-group")), announce=lambda line: None)
    assert not (tmp_path / SOCKET_NAME).exists()


async def test_of_many_that_do_not_greet_the_longest_silent_makes_room_and_the_others_go_on(tmp_path):
    async with served(tmp_path) as path:
        silent = [await connect_unix(path) for _ in range(limits.MAX_UNGREETED // 4)]
        async with opened(await connect_unix(path), Role.USER):
            pass
        ended = []

        async def listen(number, stream):
            if await stream.receive_some() == b"":
                ended.append(number)

        async with trio.open_nursery() as nursery:
            for number, stream in enumerate(silent):
                nursery.start_soon(listen, number, stream)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert ended == [0]
        for stream in silent:
            await stream.aclose()


async def test_another_version_is_told_to_both(tmp_path):
    async with served(tmp_path) as path:
        stream = await connect_unix(path)
        await stream.send_all(codec.frame(0, 0, codec.encode_message(Hello(PROTOCOL_VERSION + 1, Role.NODE))))
        answer = codec.decode_body((await stream.receive_some(10_000))[4:])[2]
        assert "install the same release" in answer.reason
        await stream.aclose()


# ---- what prevents serving


def test_what_prevents_serving_is_one_sentence_and_a_status(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert serve(tmp_path / "file" / "state") == 1
    assert serve(tmp_path / "state", tmp_path / "missing.toml") == 2
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "coordinator.sqlite").write_text("no database at all" * 300)
    assert serve(tmp_path / "damaged") == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("coordinator: ") for line in lines)
    assert "damaged" in lines[2]
    assert "Move it" in lines[2]


def test_a_broken_lifeline_ends_it(tmp_path):
    reading, writing = os.pipe()
    said = []

    def ready(line: str) -> None:
        said.append(line)
        os.close(writing)

    try:
        assert serve(tmp_path, lifeline=reading, announce=ready) == 0
    finally:
        os.close(reading)
    assert len(said) == 1
