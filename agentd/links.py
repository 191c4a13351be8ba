"""The keepers as processes: started, listened to, watched, and buried with all that they had started.

A keeper is known by its process (pid, start time, boot) and its user, never by what it says: a task that came to the
socket under its name is a stranger. What it says reaches the core in order; that it is dead reaches the core last, when
nothing of it is alive and its record was read.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import trio

from agentd import dialogue
from agentd.beneath import meaning
from agentd.dialogue import FromKeeper, KeeperHello, ToKeeper
from agentd.events import Event, ForgetKeeper, KeeperDead, KeeperSaid, KillKeeper, StartKeeper, SurveyKeeper, Unkillable
from agentd.keeper import Outbox, ProtocolError, receive_packet
from agentd.processes import ContainmentError, ProcessProof, open_process, proof_of
from agentd.records import Purpose
from agentd.spawn import AS_WE_ARE, Fence, Starter
from wire.address import short_path

HELLO_S: Final = 10.0
"""For a connection to say who it is."""
LAST_WORDS_S: Final = 2.0
"""For what a dead keeper had sent to be read; and for one that hung up to die."""
KILL_AGAIN_S: Final = 1.0
NAMELESS_S: Final = 3.0
"""For a keeper to connect whose process an earlier life of ours did not get to note."""
MAX_UNKNOWN: Final = 64
"""Connections that have not said who they are."""
_CREDENTIALS: Final = struct.Struct("iII")
_PACKET: Final = msgspec.json.Decoder(list[FromKeeper])


@dataclass(slots=True)
class Kept:
    """A keeper that was started and is not buried."""

    name: str
    job: str
    uid: int | None = None
    """Who it became; None: as we are."""
    proof: ProcessProof | None = None
    known: trio.Event = field(default_factory=trio.Event)
    """Set once its process is known, or known not to be."""
    link: Link | None = None
    silent: trio.Event = field(default_factory=trio.Event)
    """Set when all that it sent was read."""
    burying: bool = False


class Link:
    """The agent's end of a keeper's connection."""

    def __init__(self, sock: socket.socket, nursery: trio.Nursery) -> None:
        self.sock = sock
        self._outbox = Outbox(sock)
        self._nursery = nursery
        self._writing = False
        self.broken = False

    def say(self, messages: Sequence[ToKeeper]) -> None:
        """Queue these and send what the socket takes; dropped on a broken link."""
        if self.broken:
            return
        self._outbox.put([dialogue.encode(message) for message in messages])
        if not self._writing:
            self._flush()

    def _flush(self) -> bool:
        try:
            done = self._outbox.flush()
        except OSError:
            self.close()
            return True
        if not done and not self._writing:
            self._writing = True
            self._nursery.start_soon(self._write_rest)
        return done

    async def _write_rest(self) -> None:
        try:
            while not self.broken:
                await trio.lowlevel.wait_writable(self.sock)
                if self._flush():
                    break
        except trio.ClosedResourceError:
            self.broken = True
        finally:
            self._writing = False

    def close(self) -> None:
        if not self.broken:
            self.broken = True
            self._outbox.close()
            trio.lowlevel.notify_closing(self.sock)
            self.sock.close()


class Links:
    """Invariant: of every keeper in `_kept` exactly one KeeperDead will be put, after all that it said."""

    def __init__(
        self,
        starter: Starter,
        agent_directory: str,
        base: str,
        boot: str,
        put: Callable[[Event], Awaitable[None]],
        log: Any,
        fence: Callable[[StartKeeper | SurveyKeeper], Fence] = lambda order: AS_WE_ARE,
    ) -> None:
        """`fence` says how a keeper is held; in a thread, and it may raise ContainmentError or OSError."""
        self._starter = starter
        self._fence = fence
        self._base = base
        self._boot = boot
        self._put = put
        self._log = log
        self._kept: dict[str, Kept] = {}
        self._threads = trio.CapacityLimiter(16)
        self._unknown = trio.CapacityLimiter(MAX_UNKNOWN)
        self._proofs = Path(agent_directory) / "proofs"
        self._proofs.mkdir(mode=0o700, exist_ok=True)
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen for keepers until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            with self._listening() as listener:
                task_status.started()
                while True:
                    await trio.lowlevel.wait_readable(listener)
                    try:
                        sock, _ = listener.accept()
                    except BlockingIOError:
                        continue
                    except OSError as error:  # out of descriptors, or gone before it was accepted
                        self._log.warning("a keeper's connection could not be taken", reason=error.strerror)
                        await trio.sleep(0.1)
                        continue
                    nursery.start_soon(self._serve, sock)

    def _listening(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        path = f"{self._starter.door}/keepers.sock"
        Path(path).unlink(missing_ok=True)
        with short_path(path) as short:
            listener.bind(short)
        os.chmod(path, 0o666 if os.geteuid() == 0 else 0o600)  # to be reached, one needs a handle of the door
        listener.listen(128)
        listener.setblocking(False)
        return listener

    # ---- orders

    def order(self, order: StartKeeper | SurveyKeeper | KillKeeper | ForgetKeeper) -> None:
        """Do it; the answer is an event."""
        assert self._nursery is not None, "orders come while it runs"
        match order:
            case StartKeeper():
                kept = self._kept[order.keeper] = Kept(order.keeper, order.job)
                self._nursery.start_soon(self._start, kept, order)
            case SurveyKeeper():
                kept = self._kept[order.keeper] = Kept(order.keeper, order.job)
                self._nursery.start_soon(self._survey, kept, order)
            case KillKeeper():
                self._nursery.start_soon(self._kill, order.keeper)
            case ForgetKeeper():
                self._nursery.start_soon(self._forget, order.keeper)

    def proof(self, keeper: str) -> ProcessProof | None:
        """The process of a keeper that is not buried, as far as it is known."""
        kept = self._kept.get(keeper)
        return None if kept is None else kept.proof

    def leave(self) -> None:
        """Stop listening and watching; keepers live on for the next life of the agent."""
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    def say(self, said: Sequence[tuple[str, ToKeeper]]) -> None:
        """Tell keepers these, in order; what is for a dead one is dropped."""
        gathered: dict[str, list[ToKeeper]] = {}
        for name, message in said:
            gathered.setdefault(name, []).append(message)
        for name, messages in gathered.items():
            kept = self._kept.get(name)
            if kept is not None and kept.link is not None:
                kept.link.say(messages)

    async def _in_thread(self, act: Callable[..., Any], *arguments: Any) -> Any:
        return await trio.to_thread.run_sync(partial(act, *arguments), limiter=self._threads)

    async def _start(self, kept: Kept, order: StartKeeper) -> None:
        try:
            kept.proof = await self._in_thread(self._spawn, kept, order)
        except (ContainmentError, OSError) as error:
            kept.burying = True
            self._log.error("a keeper could not be started", keeper=kept.name, job=kept.job, reason=str(error))
            del self._kept[kept.name]
            await self._put(KeeperDead(kept.name, reason=str(error)))
            return
        finally:
            kept.known.set()
        await self._watch(kept)

    def _spawn(self, kept: Kept, order: StartKeeper) -> ProcessProof:
        fence = self._fence(order)
        kept.uid = fence.uid
        # The start runs beside the jobs' directories, not among them.
        base = os.path.dirname(self._base) if order.purpose is Purpose.START else self._base
        proof = self._starter.start(kept.name, kept.job, base, fence)
        who = "-" if fence.uid is None else fence.uid
        try:
            (self._proofs / kept.name).write_text(f"{proof.pid} {proof.starttime} {proof.boot} {who}\n", "ascii")
        except OSError:
            self._starter.kill(kept.name, kept.job, proof)
            raise
        return proof

    async def _survey(self, kept: Kept, order: SurveyKeeper) -> None:
        """Of an earlier life of ours: alive, it connects; dead, it is buried. One without a proof was being started
        when we died: it has been given nothing, and connects or not."""
        await self._in_thread(self._identify, kept, order)
        kept.known.set()
        if kept.proof is not None:
            await self._watch(kept)
            return
        await trio.sleep(NAMELESS_S)
        if kept.link is None:
            await self._bury(kept)

    def _identify(self, kept: Kept, order: SurveyKeeper) -> None:
        """Whom we noted when we started it; else who says so in its record, where only itself can have written."""
        try:
            pid, starttime, boot, who = (self._proofs / kept.name).read_text("ascii").split()
            kept.proof, kept.uid = ProcessProof(int(pid), int(starttime), boot), None if who == "-" else int(who)
        except (OSError, ValueError):
            kept.proof = self._starter.recorded_process(kept.name)
            try:
                kept.uid = self._fence(order).uid
            except (ContainmentError, OSError) as error:
                self._log.warning("a keeper's user is not known", keeper=kept.name, reason=str(error))

    async def _watch(self, kept: Kept) -> None:
        """Until its process is over."""
        assert kept.proof is not None, "only a known process is watched"
        handle = open_process(kept.proof, self._boot)
        if handle is not None:
            try:
                await trio.lowlevel.wait_readable(handle)
            finally:
                os.close(handle)
        await self._bury(kept)

    async def _kill(self, name: str) -> None:
        kept = self._kept.get(name)
        if kept is not None:
            await kept.known.wait()
            await self._bury(kept)

    async def _bury(self, kept: Kept) -> None:
        """Kill what is left of it, read what it recorded, and say that it is dead."""
        if kept.burying:
            return
        kept.burying = True
        while reason := await self._in_thread(self._kill_tree, kept):
            self._log.error("processes can't be killed", keeper=kept.name, job=kept.job, reason=reason)
            await self._put(Unkillable(kept.job, kept.name))
            await trio.sleep(KILL_AGAIN_S)
        if kept.link is not None:
            with trio.move_on_after(LAST_WORDS_S):
                await kept.silent.wait()
            kept.link.close()
        record = await self._in_thread(self._starter.record, kept.name)
        ends = []
        for plain in record.ended:
            try:
                ends.append(dialogue.ended_from_plain(plain))
            except msgspec.ValidationError as error:
                self._log.error("a record can't be read", keeper=kept.name, reason=str(error))
        started = frozenset() if record.started is None else frozenset({record.started})
        if words := await self._in_thread(self._starter.last_words, kept.name):
            self._log.warning("a keeper complained", keeper=kept.name, job=kept.job, words=words)
        del self._kept[kept.name]
        await self._put(KeeperDead(kept.name, started, tuple(ends), "" if kept.link is not None else words))

    def _kill_tree(self, kept: Kept) -> str | None:
        """Why something of it is still alive, or None."""
        try:
            survivors = self._starter.kill(kept.name, kept.job, kept.proof)
        except (ContainmentError, OSError) as error:
            return str(error)
        return f"{survivors} would not die" if survivors else None

    async def _forget(self, name: str) -> None:
        try:
            await self._in_thread(self._starter.forget, name)
            (self._proofs / name).unlink(missing_ok=True)
        except OSError as error:  # they are in nobody's way: no keeper is called so again
            self._log.warning("files of a dead keeper are left", keeper=name, reason=meaning(error))

    # ---- a connection

    async def _serve(self, sock: socket.socket) -> None:
        """From the first packet to the end of the connection."""
        sock.setblocking(False)
        assert self._nursery is not None, "connections come while it runs"
        link = Link(sock, self._nursery)
        kept = None
        try:
            async with self._unknown:
                with trio.move_on_after(HELLO_S):
                    kept = await self._greet(link)
            if kept is not None:
                await self._listen(kept, link)
        except (ProtocolError, ValueError, RecursionError) as error:  # what is no UTF-8 is no MsgspecError
            self._log.error("a keeper broke the protocol", reason=str(error)[:300])
        except OSError as error:
            self._log.warning("a keeper's connection broke", reason=error.strerror)
        finally:
            link.close()
            if kept is not None:
                kept.silent.set()
                self._nursery.start_soon(self._hung_up, kept)

    async def _greet(self, link: Link) -> Kept | None:
        """Who it is, proven; None for what is none of ours."""
        assert self._nursery is not None, "connections come while it runs"
        pid, uid, _ = _CREDENTIALS.unpack(
            link.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        said = await self._packet(link)
        if not said or not isinstance(said[0], KeeperHello):
            self._log.warning("a stranger at the keepers' socket", uid=uid, pid=pid)
            return None
        hello = said[0]
        kept = self._kept.get(hello.keeper)
        if kept is not None:
            await kept.known.wait()
            if kept.proof is None:
                kept.proof = await self._in_thread(self._starter.recorded_process, kept.name)
                if kept.proof is not None:
                    self._nursery.start_soon(self._watch, kept)
        if kept is None or not self._is(kept, pid, uid):
            self._log.warning("a stranger who calls itself a keeper", keeper=hello.keeper[:100], uid=uid, pid=pid)
            return None
        if kept.link is not None:  # one process, one connection: what was on the first one can't be known
            self._nursery.start_soon(self._bury, kept)
            return None
        kept.link = link
        for message in said:
            await self._put(KeeperSaid(kept.name, message))
        return kept

    def _is(self, kept: Kept, pid: int, uid: int) -> bool:
        """Whether this process, which connected as this user, is the keeper."""
        whose = os.geteuid() if kept.uid is None else kept.uid
        return not kept.burying and uid == whose and kept.proof is not None and proof_of(pid, self._boot) == kept.proof

    async def _listen(self, kept: Kept, link: Link) -> None:
        while said := await self._packet(link):
            for message in said:
                await self._put(KeeperSaid(kept.name, message))

    async def _hung_up(self, kept: Kept) -> None:
        """One that goes dies now. One that lives on without us can't be told what to do: it is killed."""
        with trio.move_on_after(LAST_WORDS_S):
            while not kept.burying:
                handle = None if kept.proof is None else open_process(kept.proof, self._boot)
                if handle is None:
                    break
                try:
                    await trio.lowlevel.wait_readable(handle)
                finally:
                    os.close(handle)
        await self._bury(kept)

    async def _packet(self, link: Link) -> list[FromKeeper]:
        """The next packet's messages, empty at the end. Raises OSError, ProtocolError, ValueError, RecursionError."""
        while True:
            try:
                packet = receive_packet(link.sock)
            except BlockingIOError:
                try:
                    await trio.lowlevel.wait_readable(link.sock)
                except trio.ClosedResourceError:
                    return []
                continue
            return [] if packet is None else _PACKET.decode(packet)
