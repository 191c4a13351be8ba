"""The coordinator's shell: a socket, sessions, the store, and the driver around `coordinator.core`.

`serve` is the whole daemon. What a session says reaches the core as an event; what the core wants said goes out once
the records before it are durable. Uploads end here: the core sees documents.
"""

from __future__ import annotations

import gc
import grp
import os
import resource
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import trio

from coordinator.config import Config, ConfigError, name_of, read_config
from coordinator.core import Core
from coordinator.events import Event, FinishAsked, Ready, Received, SessionClosed, SessionOpened, StoreState, Tick
from coordinator.store import Store, open_store
from wire import codec, limits
from wire.address import SOCKET_NAME
from wire.blobs import BlobRefused, Blobs
from wire.clock import boot_clock
from wire.codec import FrameTooLarge, ProtocolError
from wire.driver import Driver
from wire.ledger import StoreError, StoreFull, StoreHeld
from wire.log import daemon_log
from wire.messages import AnyMessage, Message, RefusalCode, Refused, Reply, Submit, Upload
from wire.stream import End, Session, SessionRefused, accepted, listen_unix, peer_uid, refuse

MAX_SESSIONS: Final = 20_000
BLOBS: Final = "blobs"
BROKEN_LIFELINE: Final = "UserTerminate"
"""The end reason of jobs whose `run` died."""

_STATUS: Final[dict[type[Exception], int]] = {StoreHeld: 3, StoreError: 1, ConfigError: 2, OSError: 1}
"""Ends that are no mistake of ours, with their exit status (the first that fits)."""


def serve(
    state: str | Path,
    config_file: str | Path | None = None,
    *,
    lifeline: int | None = None,
    announce: Callable[[str], None] | None = None,
) -> int:
    """Serve the state directory until SIGTERM, or until all is over after it was asked to finish; the exit status.

    `lifeline` is the reading end of a pipe that `run` holds: when it breaks, every job is ended, every release paid,
    and the coordinator goes. `announce` is given the one line that says it is ready (else stdout is). What prevents
    serving is a sentence on stderr.
    """
    os.umask(0o077)  # nothing of the state directory is for others
    try:
        config = Config() if config_file is None else read_config(Path(config_file))
        trio.run(partial(serve_state, Path(state), config, lifeline=lifeline, announce=announce or _say))
    except Exception as error:
        cause = _innermost(error)
        status = next((status for kind, status in _STATUS.items() if isinstance(cause, kind)), None)
        if status is None:
            raise
        reason = f"{cause.filename or state}: {cause.strerror or cause}" if isinstance(cause, OSError) else str(cause)
        print(f"coordinator: {reason}", file=sys.stderr, flush=True)
        return status
    return 0


def _say(line: str) -> None:
    print(line, flush=True)  # stdout may be a file, and somebody waits for the line


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def serve_state(
    state: Path, config: Config, *, lifeline: int | None = None, announce: Callable[[str], None]
) -> None:
    """As `serve`, inside trio. Raises StoreError, ConfigError, OSError (in groups)."""
    _raise_file_limit()
    clock = boot_clock()
    async with open_store(state) as store:
        core = Core()
        for record in await store.load():
            core.apply(record)
        core.restarted(clock())
        gc.freeze()  # what was loaded stays: no collection need walk it again
        blobs = Blobs(state / BLOBS)
        blobs.expire(clock().wall)
        driver = Driver[Event, Ready](
            core,
            clock=clock,
            tick=Tick(),
            commit=store.commit,
            deliver=lambda ready: server.deliver(ready),
            send_at_once=lambda ready: server.send_at_once(ready),
            store_state=StoreState,
        )
        server = Server(driver, store, blobs, config)
        path = state / SOCKET_NAME
        listener = listen_unix(str(path))
        try:
            if config.socket.group is not None:
                _admit_group(state, path, config.socket.group)
            await server.run(listener, lifeline, partial(announce, f"coordinator: ready at {path}"))
        finally:
            await listener.aclose()
            path.unlink(missing_ok=True)


class Server:
    """The sessions around one driver. Invariant: a message is sent only to a session that the core was told of."""

    def __init__(self, driver: Driver[Event, Ready], store: Store, blobs: Blobs, config: Config) -> None:
        self.counts: Counter[str] = Counter()
        """What was refused or dropped, by kind."""
        self._driver = driver
        self._store = store
        self._blobs = blobs
        self._config = config
        self._own = os.getuid()
        self._sessions: dict[int, Session] = {}
        self._uploaded: dict[tuple[int, int], tuple[str, str]] = {}
        """(session, request) of a Submit whose document was a blob -> (owner, digest), until it is answered."""
        self._ungreeted = 0
        self._all_gone = trio.Event()
        self._stopping = False
        self._log: Any = daemon_log("coordinator")

    async def run(self, listener: trio.SocketListener, lifeline: int | None, ready: Callable[[], None]) -> None:
        """Serve until the driver stops, then say goodbye to everybody."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._stop_on_signal, signals, nursery.cancel_scope)
                if lifeline is not None:
                    nursery.start_soon(self._finish_on_break, lifeline)
                nursery.start_soon(partial(trio.serve_listeners, self._admit, [listener], handler_nursery=nursery))
                ready()
                await self._driver.run()
                await self._part()
                nursery.cancel_scope.cancel()

    async def _stop_on_signal(self, signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        """The first one stops cleanly, a second one does not wait for anybody."""
        async for number in signals:
            self._log.info("stopping", signal=signal.Signals(number).name)
            if self._stopping:
                scope.cancel()
            self._stopping = True
            self._driver.stop()

    async def _finish_on_break(self, lifeline: int) -> None:
        while True:
            await trio.lowlevel.wait_readable(lifeline)
            if not os.read(lifeline, 4096):
                break
        self._log.warning("run is gone: ending every job and releasing every node")
        self._driver.post(FinishAsked(BROKEN_LIFELINE))

    async def _part(self) -> None:
        for session in list(self._sessions.values()):
            session.close("the coordinator stops")
        if self._sessions:
            with trio.move_on_after(limits.GOODBYE_S):
                await self._all_gone.wait()

    # ---- one peer

    async def _admit(self, stream: trio.SocketStream) -> None:
        """A connection: who is it, may it come in, what does it say."""
        uid = peer_uid(stream)
        allowed = self._config.roles_of(uid, self._own)
        if not allowed:
            await self._turn_away(stream, f"this coordinator does not serve the user {name_of(uid)}")
            return
        if self._ungreeted >= limits.MAX_UNGREETED or len(self._sessions) >= MAX_SESSIONS:
            await self._turn_away(stream, "too many connections at once: try again")
            return
        self._ungreeted += 1
        greeted = False
        try:
            async with accepted(stream, allowed, self._store.next_epoch) as session:
                self._ungreeted -= 1
                greeted = True
                await self._converse(session, name_of(uid))
        except SessionRefused as refusal:
            self.counts["refused"] += 1
            self._log.warning("handshake failed", uid=uid, reason=str(refusal))
        except StoreFull as full:  # the numbers of sessions are durable
            self._log.error("no session can be opened", reason=str(full))
        finally:
            if not greeted:
                self._ungreeted -= 1

    async def _turn_away(self, stream: trio.SocketStream, reason: str) -> None:
        self.counts["turned away"] += 1
        self._log.warning("turned away", reason=reason)
        await refuse(stream, reason)

    async def _converse(self, session: Session, owner: str) -> None:
        epoch = session.epoch
        self._sessions[epoch] = session
        try:
            await self._driver.put(SessionOpened(epoch, session.peer, owner))
            async for message in session:
                await self._take(session, owner, message)
        finally:
            end = session.end or End("the coordinator stops")
            del self._sessions[epoch]
            self._uploaded = {key: blob for key, blob in self._uploaded.items() if key[0] != epoch}
            self._driver.post(SessionClosed(epoch, end.reason))
            self._account(session, end)
            if not self._sessions:
                self._all_gone.set()

    def _account(self, session: Session, end: End) -> None:
        self.counts["stale"] += session.connection.stale
        self.counts["doubled"] += session.connection.doubled
        if end.error:
            self.counts["protocol errors"] += 1
            self._log.warning("session broken", session=session.epoch, role=session.peer.value, reason=end.reason)

    async def _take(self, session: Session, owner: str, message: AnyMessage) -> None:
        """What the shell answers itself, and all else to the core. Awaited, so a peer can't outrun the disk."""
        if isinstance(message, Upload):
            await self._take_upload(session, owner, message)
        elif isinstance(message, Submit) and message.digest is not None:
            await self._take_submission(session, owner, message, message.digest)
        else:
            await self._driver.put(Received(session.epoch, message))

    async def _take_upload(self, session: Session, owner: str, piece: Upload) -> None:
        try:
            held = await trio.to_thread.run_sync(
                self._blobs.take, owner, piece.digest, piece.offset, piece.size, piece.content
            )
        except (BlobRefused, StoreError) as error:
            session.send(_refusal(piece.request, error))
        else:
            session.send(Reply(piece.request, {"held": held}))

    async def _take_submission(self, session: Session, owner: str, submission: Submit, digest: str) -> None:
        """Give the core the submission with its uploaded document in it."""
        try:
            document = await trio.to_thread.run_sync(self._document, owner, submission, digest)
        except (BlobRefused, ProtocolError, StoreError) as error:
            session.send(_refusal(submission.request, error))
            return
        self._uploaded[session.epoch, submission.request] = (owner, digest)
        whole = msgspec.structs.replace(submission, document=document, digest=None)
        await self._driver.put(Received(session.epoch, whole))

    def _document(self, owner: str, submission: Submit, digest: str) -> dict[str, Any]:
        if submission.document is not None:
            raise ProtocolError("a submission holds its document or names an upload, not both")
        document = codec.decode_plain(self._blobs.read(owner, digest))
        if not isinstance(document, dict):
            raise ProtocolError("an uploaded document is a map; this one is not")
        return document

    # ---- what the core wants said

    def send_at_once(self, ready: Ready) -> None:
        """What promises nothing durable."""
        for epoch, message in ready.at_once:
            self._send(epoch, message)

    def deliver(self, ready: Ready) -> None:
        """Everything else of a batch whose records are durable."""
        for epoch, message in ready.frames:
            self._send(epoch, message)
        for epoch, reason in ready.close:
            if (session := self._sessions.get(epoch)) is not None:
                session.close(reason)
        if ready.finished:
            self._driver.stop()

    def _send(self, epoch: int, message: Message) -> None:
        session = self._sessions.get(epoch)
        if session is None:
            return
        try:
            session.send(message)  # type: ignore[arg-type]  # every Message of the core is one of AnyMessage
        except FrameTooLarge as error:
            self._too_large(session, message, str(error))
        if isinstance(message, Reply | Refused):
            blob = self._uploaded.pop((epoch, message.request), None)
            if blob is not None:
                self._blobs.forget(*blob)

    def _too_large(self, session: Session, message: Message, reason: str) -> None:
        self._log.error("answer too large", session=session.epoch, reason=reason)
        if isinstance(message, Reply | Refused):
            sentence = f"the answer is too large ({reason}): ask for less at once"
            session.send(Refused(request=message.request, code=RefusalCode.FAILED, message=sentence))
        else:
            session.close(reason, error=True)


def _refusal(request: int, error: Exception) -> Refused:
    """Why an upload could not be taken or used."""
    code = RefusalCode.INVALID
    if isinstance(error, StoreError):
        code = RefusalCode.REFUSED if isinstance(error, StoreFull) else RefusalCode.FAILED
    return Refused(request=request, code=code, message=str(error))


def _raise_file_limit() -> None:
    """As many sessions as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _admit_group(state: Path, path: Path, group: str) -> None:
    """Let the members of a group come as far as the socket; nothing else of the directory opens to them."""
    try:
        number = grp.getgrnam(group).gr_gid
    except KeyError:
        raise ConfigError(f"the socket's group `{group}` does not exist on this machine") from None
    os.chown(state, -1, number)
    state.chmod(0o710)
    os.chown(path, -1, number)
    path.chmod(0o660)
