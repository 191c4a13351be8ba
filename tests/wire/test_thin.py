"""The thin session: light, blocking, and every way it can go wrong is a sentence."""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import subprocess
import sys
import threading
from contextlib import contextmanager

import msgpack
import pytest
import trio

from tests.coordinator.standin import stand_in
from wire import limits, messages, thin
from wire.messages import JobShow, RefusalCode, Refused, Reply, Role, Submit, Upload
from wire.stream import accepted, listen_unix

PEERS = frozenset(Role) - {Role.COORDINATOR}


@contextmanager
def coordinator(path, answer):
    """A coordinator in a thread: `answer(message)` gives the replies of one request. Yields what it heard."""
    heard: list = []
    ready = threading.Event()
    stop: list = []

    async def epoch() -> int:
        return 5

    async def converse(stream) -> None:
        async with accepted(stream, PEERS, epoch) as session:
            async for message in session:
                heard.append(message)
                for reply in answer(message):
                    session.send(reply)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            stop.extend([trio.lowlevel.current_trio_token(), nursery.cancel_scope.cancel])
            listener = listen_unix(str(path))
            ready.set()
            async with listener:
                await trio.serve_listeners(converse, [listener])

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    ready.wait(10)
    try:
        yield heard
    finally:
        stop[0].run_sync_soon(stop[1])
        thread.join(10)


@contextmanager
def impostor(path, *pieces: bytes):
    """Something that listens at `path`, says these bytes to whoever comes, and hangs up."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        peer, _ = listener.accept()
        with peer:
            peer.recv(1000)
            for piece in pieces:
                peer.sendall(piece)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        thread.join(10)
        listener.close()


def test_it_imports_nothing_heavy():
    script = "import sys; before = set(sys.modules); import wire.thin; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    heavy = {
        "msgspec",
        "trio",
        "lark",
        "click",
        "structlog",
        "sqlite3",
        "asyncio",
        "hashlib",
        "json",
        "logging",
        "inspect",
    }
    assert not loaded & heavy
    assert len(done.stdout.split()) < 60


def test_it_speaks_the_version_that_the_daemons_speak():
    assert thin.PROTOCOL_VERSION == messages.PROTOCOL_VERSION


def test_a_request_is_answered_by_its_body(tmp_path):
    path = tmp_path / "coordinator.sock"
    with (
        coordinator(path, lambda message: [Reply(message.request, {"id": message.job})]) as heard,
        thin.connect(str(path)) as session,
    ):
        assert session.call("JobShow", job="daily") == {"id": "daily"}
        assert session.call("JobShow", job="other") == {"id": "other"}
    assert heard == [JobShow(1, "daily"), JobShow(2, "other")]


def test_a_refusal_is_raised_with_all_it_says(tmp_path):
    path = tmp_path / "coordinator.sock"
    refusal = Refused(
        request=1,
        code=RefusalCode.UNKNOWN,
        message="no job `daly`",
        help="see job list",
        near=["daily"],
        diagnostics=[{}],
    )
    with (
        coordinator(path, lambda message: [refusal]),
        thin.connect(str(path)) as session,
        pytest.raises(thin.ThinError, match="no job `daly`") as raised,
    ):
        session.call("JobShow", job="daly")
    error = raised.value
    assert (error.code, error.help, error.near, error.diagnostics) == ("unknown", "see job list", ["daily"], [{}])


def test_every_refusal_code_is_one_of_the_four(tmp_path):
    assert {code.value for code in RefusalCode} == {"invalid", "refused", "unknown", "failed"}


def test_an_answer_that_is_late_is_not_taken_for_the_next_one(tmp_path):
    path = tmp_path / "coordinator.sock"
    late: list = []

    def answer(message):
        if message.job == "slow":
            late.append(Reply(message.request, "slow"))
            return []
        return [*late, Reply(message.request, "quick")]

    with coordinator(path, answer), thin.connect(str(path)) as session:
        with pytest.raises(thin.NoAnswer, match=r"did not answer within 0\.05 s"):
            session.call("JobShow", job="slow", timeout_s=0.05)
        assert session.call("JobShow", job="next") == "quick"


def test_a_path_longer_than_a_socket_address_works(tmp_path):
    directory = tmp_path / ("d" * 150)
    directory.mkdir()
    path = directory / "coordinator.sock"
    with coordinator(path, lambda message: [Reply(message.request, 1)]), thin.connect(str(path)) as session:
        assert session.call("JobList") == 1


class Shelf:
    """A coordinator's blobs, that loses the connection after some pieces."""

    def __init__(self, limit: int = 10**9) -> None:
        self.held: dict[str, bytes] = {}
        self.pieces: list[int] = []
        self.limit = limit
        self.submitted: list[Submit] = []

    def __call__(self, message):
        if isinstance(message, Submit):
            self.submitted.append(message)
            return [Reply(message.request, {"jobs": []})]
        assert isinstance(message, Upload)
        held = self.held.setdefault(message.digest, b"")
        if message.content and message.offset == len(held):
            if len(self.pieces) >= self.limit:
                return [Refused(request=message.request, code=RefusalCode.REFUSED, message="no room")]
            self.pieces.append(len(message.content))
            self.held[message.digest] = held + message.content
        return [Reply(message.request, {"held": len(self.held[message.digest])})]


def test_a_small_document_travels_in_its_submission(tmp_path):
    shelf = Shelf()
    with coordinator(tmp_path / "s", shelf), thin.connect(str(tmp_path / "s")) as session:
        assert session.submit({"jobs": []}, "abc", source="x", spans={"job/a": [1, 1, 1, 2]}) == {"jobs": []}
    (submit,) = shelf.submitted
    assert submit.document == {"jobs": []}
    assert (submit.submission, submit.source, submit.spans, submit.digest) == (
        "abc",
        "x",
        {"job/a": [1, 1, 1, 2]},
        None,
    )


def test_a_large_document_is_uploaded_in_pieces_and_an_interrupted_one_resumes(tmp_path):
    document = {"text": "x" * 2_000_000}
    content = msgpack.packb(document)
    digest = hashlib.sha256(content).hexdigest()
    shelf = Shelf(limit=3)
    with (
        coordinator(tmp_path / "s", shelf),
        thin.connect(str(tmp_path / "s")) as session,
        pytest.raises(thin.ThinError, match="no room"),
    ):
        session.submit(document, "abc")
    assert len(shelf.held[digest]) == 3 * limits.MAX_CHUNK
    shelf.limit = 100
    with coordinator(tmp_path / "s", shelf), thin.connect(str(tmp_path / "s")) as session:
        session.submit(document, "abc")
    assert shelf.held[digest] == content
    assert sum(shelf.pieces) == len(content)
    assert max(shelf.pieces) == limits.MAX_CHUNK
    assert [submit.digest for submit in shelf.submitted] == [digest]


def test_a_request_that_fits_no_frame_is_refused_before_it_is_sent(tmp_path):
    with coordinator(tmp_path / "s", Shelf()) as heard, thin.connect(str(tmp_path / "s")) as session:
        with pytest.raises(thin.ThinError, match="JobShow request is too large"):
            session.call("JobShow", job="x" * limits.MAX_FRAME)
        session.submit({}, "after")
    assert len(heard) == 1


# ---- nobody there


def test_no_coordinator_is_a_sentence_that_says_how_to_start_one(tmp_path):
    with pytest.raises(thin.NoCoordinator, match=r"no coordinator runs at .*coordinator serve"):
        thin.connect(str(tmp_path / "coordinator.sock"))
    with pytest.raises(thin.NoCoordinator, match="no coordinator runs at"):
        thin.connect(str(tmp_path / ("d" * 150) / "coordinator.sock"))


def test_a_socket_file_left_behind_is_told(tmp_path):
    path = tmp_path / "coordinator.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    with pytest.raises(thin.NoCoordinator, match="has ended"):
        thin.connect(str(path))


@pytest.mark.parametrize("address", ["./host:8443", "/run/pool:1/coordinator.sock"])
def test_a_path_with_a_colon_is_a_path(address):
    with pytest.raises(thin.NoCoordinator, match="no coordinator runs"):
        thin.connect(address)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "ended the connection"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no coordinator of this release"),
        (struct.pack(">I", 2**31), "no coordinator of this release"),
        (struct.pack(">I", 3) + b"\xc1\xc1\xc1", "no coordinator of this release"),
        (struct.pack(">I", 1) + b"\x05", "no coordinator of this release"),
    ],
    ids=["nothing", "http", "length", "malformed", "number"],
)
def test_what_is_no_coordinator_is_told(tmp_path, content, reason):
    with impostor(tmp_path / "s", content), pytest.raises(thin.NoCoordinator, match=reason):
        thin.connect(str(tmp_path / "s"))


def test_a_coordinator_of_another_version_says_so(tmp_path):
    frame = msgpack.packb(
        [0, 0, {"kind": "Goodbye", "reason": "install the same release on both sides", "error": True}]
    )
    with (
        impostor(tmp_path / "s", struct.pack(">I", len(frame)) + frame),
        pytest.raises(thin.NoCoordinator, match="install the same release"),
    ):
        thin.connect(str(tmp_path / "s"), "user")


def test_one_turned_away_before_it_spoke_still_learns_why(tmp_path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    frame = msgpack.packb([0, 0, {"kind": "Goodbye", "reason": "not you", "error": True}])
    made = socket.socket(socket.AF_UNIX)
    made.connect(str(tmp_path / "s"))
    peer, _ = listener.accept()
    peer.sendall(struct.pack(">I", len(frame)) + frame)
    peer.close()
    listener.close()
    with pytest.raises(thin.NoCoordinator, match="not you"):
        thin.Coordinator(made, "s", "admin")
    made.close()


def test_a_coordinator_that_stopped_while_nobody_asked_has_said_so(tmp_path):
    path = tmp_path / "coordinator.sock"
    with coordinator(path, lambda message: []):
        session = thin.connect(str(path))
    with session, pytest.raises(thin.NoCoordinator, match=r"closed the connection|ended the connection"):
        session.call("JobList")


def test_a_connection_lost_in_the_middle_is_told(tmp_path):
    welcome = msgpack.packb([0, 0, {"kind": "Welcome", "version": 1, "epoch": 3}])
    with impostor(tmp_path / "s", struct.pack(">I", len(welcome)) + welcome):
        session = thin.connect(str(tmp_path / "s"))
        with pytest.raises(thin.NoCoordinator, match=r"lost|ended the connection"):
            session.call("JobList")
        session.close()


def test_a_question_stays_open_while_others_are_asked(tmp_path):
    answers = {"JobShow": lambda asked: {"id": asked.job}}
    with stand_in(tmp_path / "s", answers), thin.connect(str(tmp_path / "s")) as it:
        first, second = it.ask("JobShow", job="a"), it.ask("JobShow", job="b")
        assert it.call("JobShow", job="c") == {"id": "c"}
        assert it.answer(second) == {"id": "b"}
        assert it.answer(first) == {"id": "a"}


def test_a_wait_for_an_answer_is_broken_off_and_taken_up_again(tmp_path):
    free, wake = threading.Event(), os.pipe()

    def slow(asked):
        free.wait(30)
        return {"id": asked.job}

    with stand_in(tmp_path / "s", {"JobShow": slow}), thin.connect(str(tmp_path / "s")) as it:
        question = it.ask("JobShow", job="a")
        with pytest.raises(thin.NoAnswer):
            it.answer(question, within_s=0.01)
        os.write(wake[1], b".")
        with pytest.raises(thin.Woken):
            it.answer(question, unless=[wake[0]])
        free.set()
        assert it.answer(question) == {"id": "a"}
    for end in wake:
        os.close(end)
