"""The coordinator's sessions: what they say reaches the core as an event, what the core wants said goes out once the
records before it are durable. Uploads and signing requests end here: the core sees documents and keys.
"""

from __future__ import annotations

import math
import os
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

import msgspec
import trio

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec


from coordinator.budget import BYTE_S, EACH_S, Budget
from coordinator.calls import Caller
from coordinator.doors import Guest, LocalDoor, TlsDoor, caller_of
from coordinator.events import (
    EndCall,
    Event,
    FinishAsked,
    PageAsked,
    Ready,
    Received,
    RenewAsked,
    Serving,
    SessionClosed,
    SessionOpened,
)
from coordinator.outputs import Keeping, Outputs
from coordinator.staging import named_in
from coordinator.store import Store
from wire import codec, limits
from wire.blobs import BlobRefused, Blobs
from wire.clock import boot_clock, processor_time
from wire.codec import FrameTooLarge, ProtocolError
from wire.driver import Driver
from wire.gate import Crowded, Gate
from wire.identity import IdentityError
from wire.ledger import StoreError, StoreFull
from wire.log import Sparing, daemon_log
from wire.messages import (
    AnyMessage,
    BlobPiece,
    Join,
    Message,
    RefusalCode,
    Refused,
    Renew,
    Renewed,
    Reply,
    Role,
    Submit,
    Upload,
)
from wire.notify import Supervisor
from wire.stream import End, Session, SessionRefused, accepted, refuse
from wire.writer import WriterThread

MAX_SESSIONS: Final = 20_000
MAX_SESSIONS_OF_ONE: Final = 128
"""Of one user or one certificate. What root or the coordinator's own user start on this machine is not counted."""
MAX_DECODED: Final = 2
"""Uploaded documents that are taken apart at once: each may be a hundred times its size then."""
MAX_WARNINGS: Final = 1_000
"""Nodes that were warned of once."""
EXPIRE_EVERY_S: Final = 3_600.0
_DIGEST: Final = re.compile(r"[0-9a-f]{64}\Z")
BLOBS: Final = "blobs"
BROKEN_LIFELINE: Final = "UserTerminate"
"""The end reason of jobs whose `run` died."""


class _Turn:
    """Of one person's connections one at a time has a request decided."""

    def __init__(self) -> None:
        self.lock = trio.Lock()


class Server:
    """The sessions around one driver. Invariant: a message is sent only to a session that the core was told of."""

    def __init__(self, driver: Driver[Event, Ready], store: Store, blobs: Blobs, local: LocalDoor) -> None:
        self.counts: Counter[str] = Counter()
        """What was refused or dropped, by kind."""
        self.tls: TlsDoor | None = None
        """Where the network is listened to."""
        self.supervisor = Supervisor(None)
        """What started this daemon, if it wants to know how it stands."""
        self.log: Any = daemon_log("coordinator")
        self.named: Callable[[], frozenset[str]] = frozenset
        """The uploaded files that jobs name."""
        self._serving: set[int] = set()
        """Sessions that wait for a piece of a file."""
        self._nursery: trio.Nursery | None = None
        self._driver = driver
        self._store = store
        self._blobs = blobs
        self._local = local
        self._sessions: dict[int, Session] = {}
        self._uploaded: dict[tuple[int, int], tuple[str, str]] = {}
        """(session, request) of a Submit whose document was a blob -> (owner, digest), until it is answered."""
        self._renewing: dict[int, ec.EllipticCurvePublicKey] = {}
        """Sessions that asked for their next certificate, with the key that it is for."""
        self._warned: set[str] = set()
        self.caller = Caller()
        """Runs what jobs' `on_end` name."""
        self._ask_call, self._calls_asked = trio.open_memory_channel[EndCall](math.inf)
        """As many as `at_once` says at most."""
        self._ask_page, self._pages_asked = trio.open_memory_channel[PageAsked](math.inf)
        """As many as there are readers (`coordinator.readers`) at most."""
        self._gate = Gate()
        self.budget = Budget(processor_time)
        """What persons' requests cost."""
        self._persons: dict[int, str] = {}
        """Whose sessions of persons are."""
        self._turns: WeakValueDictionary[str, _Turn] = WeakValueDictionary()
        """By person, while one of them is asking."""
        self._of_one: Counter[str] = Counter()
        """Sessions by whose they are."""
        self._clock = boot_clock()
        self._noise = Sparing(self.log, self._clock)
        self._decoding = trio.CapacityLimiter(MAX_DECODED)
        self.keeping: Keeping | None = None
        """Of outputs, where they are kept."""
        self._all_gone = trio.Event()
        self._stopping = False

    async def run(
        self,
        listener: trio.SocketListener,
        remote: list[trio.SocketListener],
        lifeline: int | None,
        ready: Callable[[], None],
    ) -> None:
        """Serve until the driver stops, then say goodbye to everybody."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._stop_on_signal, signals, nursery.cancel_scope)
                nursery.start_soon(self._expire_uploads)
                nursery.start_soon(self._bring_pages)
                nursery.start_soon(self._make_calls)
                if lifeline is not None:
                    nursery.start_soon(self._finish_on_break, lifeline)
                nursery.start_soon(partial(trio.serve_listeners, self._admit, [listener], handler_nursery=nursery))
                if self.tls is not None:
                    admit = partial(self._admit_remote, self.tls)
                    nursery.start_soon(partial(trio.serve_listeners, admit, remote, handler_nursery=nursery))
                    nursery.start_soon(self.tls.stay_valid)
                if self.keeping is not None:
                    nursery.start_soon(self.keeping.run)
                ready()
                self._tell(self.supervisor.ready("serving"))
                await self._driver.run()
                self._tell(self.supervisor.stopping())
                await self._part()
                nursery.cancel_scope.cancel()

    async def _make_calls(self) -> None:
        async with trio.open_nursery() as nursery:
            async for call in self._calls_asked:
                nursery.start_soon(self._call, call)

    async def _call(self, call: EndCall) -> None:
        over = await self.caller.run(call)
        if over.exit_code != 0:
            said = over.output[-200:].decode("utf-8", "replace")
            self.log.warning("on_end failed", job=call.job, status=over.exit_code, reason=over.reason, said=said)
        self._driver.post(over)

    async def _bring_pages(self) -> None:
        """One after the other: between two commits at most one page is read."""
        async for asked in self._pages_asked:
            self._driver.post(await self._store.page(asked))

    async def _stop_on_signal(self, signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        """The first one stops cleanly, a second one does not wait for anybody."""
        async for number in signals:
            self.log.info("stopping", signal=signal.Signals(number).name)
            if self._stopping:
                scope.cancel()
            self._stopping = True
            self._driver.stop()

    def _tell(self, unheard: str | None) -> None:
        if unheard is not None:
            self.log.warning("the service manager does not listen", reason=unheard)

    async def _finish_on_break(self, lifeline: int) -> None:
        while True:
            await trio.lowlevel.wait_readable(lifeline)
            if not os.read(lifeline, 4096):
                break
        self.log.warning("run is gone: ending every job and releasing every node")
        self._driver.post(FinishAsked(BROKEN_LIFELINE))

    async def _expire_uploads(self) -> None:
        """What no job names, and nobody went on with, is given up."""
        clock = boot_clock()
        while True:
            await trio.sleep(EXPIRE_EVERY_S)
            try:
                await trio.to_thread.run_sync(self._blobs.expire, clock().wall, self.named())
            except OSError as error:
                self.log.error("old uploads can't be removed", reason=error.strerror)

    async def _serve(self, serving: Serving) -> None:
        """A piece of a file, to a node that waits for it. It asks for one at a time."""
        session = self._sessions.get(serving.session)
        if session is None or serving.session in self._serving:
            return
        self._serving.add(serving.session)
        piece = partial(BlobPiece, job=serving.job, digest=serving.digest, offset=serving.offset)
        try:
            content = await trio.to_thread.run_sync(self._blobs.piece, serving.digest, serving.offset)
            session.send(piece(content=content))
        except (BlobRefused, StoreError) as error:
            session.send(piece(refused=str(error)))
        finally:
            self._serving.discard(serving.session)

    async def _part(self) -> None:
        for session in list(self._sessions.values()):
            session.close("the coordinator stops")
        if self._sessions:
            with trio.move_on_after(limits.GOODBYE_S):
                await self._all_gone.wait()

    # ---- one peer

    async def _admit(self, stream: trio.SocketStream) -> None:
        """A connection over the unix socket: who is it, may it come in, what does it say."""
        try:
            guest = self._local.guest(stream)
        except SessionRefused as refusal:
            await self._turn_away(stream, str(refusal), for_good=True)
            return
        if len(self._sessions) >= MAX_SESSIONS:
            await self._turn_away(stream, "too many connections at once: try again")
            return
        placed = False
        try:
            async with self._gate.place(guest.origin) as place:
                placed = True
                await self._receive(stream, guest, place.leave)
        except Crowded as crowded:
            if not placed:
                await self._turn_away(stream, str(crowded))
            else:  # it was silent for too long, and its place is another's now
                self.counts["turned away"] += 1

    async def _admit_remote(self, door: TlsDoor, transport: trio.SocketStream) -> None:
        """A connection over the network. Whatever it does or fails to do is its own loss."""
        caller = caller_of(transport)
        try:
            if len(self._sessions) >= MAX_SESSIONS:
                raise Crowded
            async with door.gate.place(caller) as place:
                admitted = await door.guest(transport)
                if admitted is not None:
                    await self._receive(*admitted, place.leave)
        except SessionRefused as refusal:
            self.counts["refused"] += 1
            self._noise.warning("refused", caller=caller, reason=str(refusal))
        except Crowded as crowded:  # nothing can be said before TLS is up, which is what there is no room for
            self.counts["turned away"] += 1
            self._noise.warning("turned away", caller=caller, reason=str(crowded))
        finally:
            await trio.aclose_forcefully(transport)

    async def _receive(self, stream: trio.abc.Stream, guest: Guest, greeted: Callable[[], None]) -> None:
        """A session with a guest, from its greeting to its end."""
        try:
            async with accepted(stream, guest.allowed, self._store.next_epoch) as session:
                greeted()
                await self._converse(session, guest)
        except SessionRefused as refusal:
            self.counts["refused"] += 1
            self._noise.warning("handshake failed", origin=guest.origin, reason=str(refusal))
        except StoreFull as full:  # the numbers of sessions are durable
            self.log.error("no session can be opened", reason=str(full))

    async def _turn_away(self, stream: trio.SocketStream, reason: str, *, for_good: bool = False) -> None:
        self.counts["turned away"] += 1
        self._noise.warning("turned away", reason=reason)
        await refuse(stream, reason, for_good=for_good)

    async def _converse(self, session: Session, guest: Guest) -> None:
        epoch = session.epoch
        if self._of_one[guest.origin] >= MAX_SESSIONS_OF_ONE and not self._is_trusted(guest):
            session.close(f"{guest.owner} has {MAX_SESSIONS_OF_ONE} connections already: end some of them first")
            return
        self._sessions[epoch] = session
        self._of_one[guest.origin] += 1
        if session.peer is not Role.NODE:
            self._persons[epoch] = guest.owner
        try:
            await self._driver.put(SessionOpened(epoch, session.peer, guest.owner, guest.key, guest.expires))
            while (message := await session.receive()) is not None:
                await self._take(session, guest, message)
                if session.peer is not Role.NODE:
                    await session.has_room()
        finally:
            end = session.end or End("the coordinator stops")
            del self._sessions[epoch]
            self._persons.pop(epoch, None)
            self._of_one[guest.origin] -= 1
            if not self._of_one[guest.origin]:
                del self._of_one[guest.origin]
            self._renewing.pop(epoch, None)
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
            self.log.warning("session broken", session=session.epoch, role=session.peer.value, reason=end.reason)

    async def _take(self, session: Session, guest: Guest, message: AnyMessage) -> None:
        """What the shell answers itself, and all else to the core. Awaited, so a peer can't outrun the disk."""
        if isinstance(message, Upload):
            async with self._turn_of(session, guest):
                pass  # but the disk is not waited for in it
            await self._take_upload(session, guest.owner, message)
        elif isinstance(message, Submit):
            async with self._turn_of(session, guest, session.connection.frame_size):
                await self._take_submission(session, guest.owner, message)
        elif isinstance(message, Renew):
            async with self._turn_of(session, guest):
                await self._take_renewal(session, guest, message)
        else:
            if isinstance(message, Join):
                self._warn_of_shared_user(guest, message)
            event, size = Received(session.epoch, message), session.connection.frame_size
            if session.peer is Role.NODE:
                await self._driver.put(event, size)
            else:
                async with self._turn_of(session, guest, size):
                    await self._driver.hand_over(event, size)

    @asynccontextmanager
    async def _turn_of(self, session: Session, guest: Guest, size: int = 0) -> AsyncIterator[None]:
        """When what this person has asked before is paid for, and nothing else of him waits to be decided. `size`:
        bytes of the request that were taken apart."""
        if session.peer is Role.NODE or self._is_trusted(guest):
            yield
            return
        turn = self._turns.setdefault(guest.owner, _Turn())
        async with turn.lock:
            pause_s = self.budget.pause_s(guest.owner, self._clock().boottime)
            if pause_s:
                await trio.sleep(pause_s)
            self.budget.charge(guest.owner, EACH_S + BYTE_S * size)
            yield

    def _is_trusted(self, guest: Guest) -> bool:
        """Whether it may do to this process what it likes anyway."""
        return self._local.is_own(guest) or guest.uid == 0

    async def _take_renewal(self, session: Session, guest: Guest, renewal: Renew) -> None:
        """The next certificate is for the key that the session lives by, and for no other."""
        from wire.keys import fingerprint, requested_key

        try:
            key = requested_key(renewal.request)
        except IdentityError as error:
            session.close(str(error), error=True)
            return
        if guest.key is None or fingerprint(key) != guest.key:
            session.close("a certificate is renewed for the key that this connection was opened with", error=True)
            return
        self._renewing[session.epoch] = key
        await self._driver.put(RenewAsked(session.epoch))

    def _warn_of_shared_user(self, guest: Guest, join: Join) -> None:
        if self._local.is_own(guest) and join.users == "same" and not join.embedded and join.node not in self._warned:
            if len(self._warned) < MAX_WARNINGS:
                self._warned.add(join.node)
            self.log.warning(
                f"tasks of node {join.node[:80]} run as the user that owns this coordinator ({guest.owner}), so they "
                "can do whatever it can: run its agent as root, or as another user"
            )

    async def _take_upload(self, session: Session, owner: str, piece: Upload) -> None:
        try:
            held = await trio.to_thread.run_sync(
                self._blobs.take, owner, piece.digest, piece.offset, piece.size, piece.content
            )
        except (BlobRefused, StoreError) as error:
            session.send(_refusal(piece.request, error))
        else:
            session.send(Reply(piece.request, {"held": held}))

    async def _take_submission(self, session: Session, owner: str, submission: Submit) -> None:
        """Give the core the submission with its document in it, once all the files that it names are here."""
        document, size = submission.document, session.connection.frame_size
        try:
            if submission.digest is not None:
                document, size = await trio.to_thread.run_sync(
                    self._document, owner, submission, submission.digest, limiter=self._decoding
                )
            if named := named_in(document):
                await trio.to_thread.run_sync(self._look_for, owner, named)
        except (BlobRefused, ProtocolError, StoreError) as error:
            session.send(_refusal(submission.request, error))
            return
        if submission.digest is not None:
            self._uploaded[session.epoch, submission.request] = (owner, submission.digest)
        whole = msgspec.structs.replace(submission, document=document, digest=None)
        await self._driver.hand_over(Received(session.epoch, whole), size)

    def _look_for(self, owner: str, named: dict[str, str]) -> None:
        for digest, path in named.items():
            if not _DIGEST.match(digest) or self._blobs.lacks(owner, digest):
                raise BlobRefused(f"the content of file {path[:200]!r} was not uploaded, or given up: upload it again")

    def _document(self, owner: str, submission: Submit, digest: str) -> tuple[dict[str, Any], int]:
        if submission.document is not None:
            raise ProtocolError("a submission holds its document or names an upload, not both")
        content = self._blobs.read(owner, digest)
        before = processor_time()
        try:
            document = codec.decode_plain(content)
        finally:
            trio.from_thread.run_sync(self.budget.charge, owner, processor_time() - before)
        if not isinstance(document, dict):
            raise ProtocolError("an uploaded document is a map; this one is not")
        return document, len(content)

    # ---- what the core wants said

    def send_at_once(self, ready: Ready) -> None:
        """What promises nothing durable."""
        for epoch, message in ready.at_once:
            self._send(epoch, message)

    def deliver(self, ready: Ready) -> None:
        """Everything else of a batch whose records are durable."""
        for epoch in ready.discard:
            if (session := self._sessions.get(epoch)) is not None:
                session.discard()
        for epoch, message in ready.frames:
            self._send(epoch, message)
        for asked in ready.pages:
            self._ask_page.send_nowait(asked)
        for call in ready.calls:
            self._ask_call.send_nowait(call)
        if self.keeping is not None:
            self._deliver_outputs(ready, self.keeping)
        for sentence in ready.alarms:
            self.log.error("alarm", reason=sentence)
        for serving in ready.pieces:
            assert self._nursery is not None, "the driver runs inside the nursery"
            self._nursery.start_soon(self._serve, serving)
        if self.tls is not None:
            self.tls.deliver(ready)
            for admitted in ready.admitted:
                if (key := self._renewing.get(admitted.connection)) is not None:
                    self._send(admitted.connection, Renewed(self.tls.sign(admitted, key)))
        for epoch, reason in ready.close:
            if (session := self._sessions.get(epoch)) is not None:
                session.close(reason)
        if ready.finished:
            self._driver.stop()

    def keep_outputs(self, writer: WriterThread[Outputs]) -> None:
        """Keep them there."""
        self.keeping = Keeping(writer, self._send, self.log)

    def _deliver_outputs(self, ready: Ready, keeping: Keeping) -> None:
        for said in ready.outputs:
            if not keeping.take(said) and (session := self._sessions.get(said.session)) is not None:
                session.close("the outputs before these are not kept yet", error=True)
        for lookup in ready.lookups:
            keeping.find(lookup)
        for scope in ready.forget:
            keeping.forget(scope)

    def _send(self, epoch: int, message: Message) -> None:
        session = self._sessions.get(epoch)
        if session is None:
            return
        if (person := self._persons.get(epoch)) is not None:
            self.budget.on_account_of(person)
        try:
            session.send(message)  # type: ignore[arg-type]  # every Message of the core is one of AnyMessage
        except FrameTooLarge as error:
            self._too_large(session, message, str(error))
        if person is not None:
            self.budget.on_account_of(None)
        if isinstance(message, Reply | Refused):
            blob = self._uploaded.pop((epoch, message.request), None)
            if blob is not None:
                self._blobs.forget(*blob)

    def _too_large(self, session: Session, message: Message, reason: str) -> None:
        self.log.error("answer too large", session=session.epoch, reason=reason)
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
