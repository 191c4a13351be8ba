"""The coordinator's decisions: events in, `Ready` out; no clock, socket, file or chance.

`Cluster` holds what is durable and changes by records alone (`keep`); this class holds what is of this life only:
sessions, heartbeats, who waits for an answer. `coordinator.server` is the shell that drives it.
"""

from __future__ import annotations

from typing import Final, assert_never

from coordinator import ending, files, joining, placement, requests, work
from coordinator.cluster import Cluster
from coordinator.deadlines import Deadlines, Key
from coordinator.events import (
    Event,
    FinishAsked,
    Ready,
    Received,
    SessionClosed,
    SessionOpened,
    StoreState,
    Tick,
)
from coordinator.model import LEASE_DRIFT, LEASE_MARGIN_S, MISSED_BEATS, JobState, Node, Pool
from coordinator.records import CLUSTER_SCOPE, NodeLeft, Record, Returned, scope_of
from coordinator.sessions import Session, Waiter
from wire import messages as m
from wire.instant import Instant

STALL_S: Final = 2.0
"""A deadline met so late means that this process slept: leases are counted anew."""


class Core:
    """Decides. Invariant: after `take_ready`, every promise made in a frame stands in a record before it."""

    def __init__(self) -> None:
        self.cluster = Cluster()
        self.sessions: dict[int, Session] = {}
        self.deadlines = Deadlines()
        self.waiters: list[Waiter] = []
        self.relays: dict[int, files.Relay] = {}
        self.last_relay = 0
        self.bodies: dict[str, bytes] = {}
        self.backoffs: dict[tuple[str, int], list[tuple[float, int]]] = {}
        self.removing: dict[str, set[str]] = {}
        """Deleted jobs, with the nodes whose directories are not removed yet."""
        self.touched: dict[str, None] = {}
        """Jobs that something happened to since they were last looked at."""
        self.store_full = False
        self.finishing: str | None = None
        self.version = 0
        self.now = Instant("", 0.0, 0.0)
        self._ready = Ready()

    # ---- the one shape of all cores

    def apply(self, record: Record) -> None:
        """Take a stored record, while a restarted core is built."""
        self.cluster.apply(record)

    def restarted(self, now: Instant) -> None:
        """After the last stored record: arm what runs by the clock, and count every lease from now."""
        self.now = now
        for node in self.cluster.nodes.values():
            node.heard_at = now.boottime
            self.arm_lease(node)
        for job in self.cluster.jobs.values():
            work.rearm(self, job)
            ending.rearm(self, job)
            self.touched[job.id] = None

    def handle(self, event: Event, now: Instant) -> None:
        """Take one event at `now`."""
        self.now = now
        self._forgive()
        match event:
            case Received(session, message):
                self._received(session, message)
            case Tick():
                self._tick()
            case SessionOpened(session, role, owner):
                self.sessions[session] = Session(session, role, owner)
            case SessionClosed(session, _):
                self._session_closed(session)
            case FinishAsked(reason):
                ending.finish_all(self, reason)
            case StoreState(full):
                self.store_full = full
            case _:
                assert_never(event)

    def take_ready(self) -> Ready:
        """What must be done now, decided after all events handled since the last time."""
        self._settle()
        ready, self._ready = self._ready, Ready()
        ready.finished = self.finishing is not None and ending.all_over(self)
        return ready

    def next_deadline(self) -> Instant | None:
        """When `Tick` is due at the latest."""
        due = self.deadlines.next()
        return None if due is None else self.now.after(due - self.now.boottime)

    # ---- what the parts use

    def keep(self, record: Record) -> None:
        """Decide something durable: it is applied now and stored before anything of this `Ready` leaves."""
        self._ready.records.append(record)
        self.cluster.apply(record)
        self.version += 1
        if scope_of(record) != CLUSTER_SCOPE:
            self.touch(scope_of(record))

    def touch(self, job_id: str) -> None:
        """Something happened to the job: look at it, and at its pool, before this `Ready` leaves."""
        job = self.cluster.jobs.get(job_id)
        if job is not None:
            self.touched[job_id] = None
            self.cluster.pools[job.spec.pool].dirty = True

    def touch_pool(self, pool: Pool) -> None:
        """Something happened to the pool's nodes: every job that uses them may be concerned."""
        pool.dirty = True
        for job in self.cluster.jobs.values():
            if job.spec.pool == pool.name and (job.state is not JobState.COMPLETED or job.deleting):
                self.touched[job.id] = None

    def forget(self, scope: str) -> None:
        """Drop the rows of a scope with the next commit."""
        self._ready.records = [record for record in self._ready.records if scope_of(record) != scope]
        self._ready.forget.append(scope)

    def send(self, session: int | None, message: m.Message) -> None:
        """Send after the commit; to nobody when there is no session."""
        if session is not None and session in self.sessions:
            self._ready.frames.append((session, message))

    def send_at_once(self, session: int, message: m.Message) -> None:
        """Send without waiting for a commit: for what promises nothing durable."""
        self._ready.at_once.append((session, message))

    def close(self, session: int, reason: str) -> None:
        """Close a session after its frames."""
        self._ready.close.append((session, reason))
        self._session_closed(session)

    def refuse(self, session: int, request: int, code: m.RefusalCode, message: str, **more: object) -> None:
        """Answer a request with a sentence."""
        self.send(session, m.Refused(request=request, code=code, message=message, **more))  # type: ignore[arg-type]

    def arm(self, key: Key, at: Instant) -> None:
        """Have `Tick` look at `key` when `at` has come."""
        self.deadlines.set(key, self.now.boottime + max(0.0, self.now.seconds_until(at)))

    def changed(self) -> None:
        """Something that people see changed without a record."""
        self.version += 1

    # ---- frames

    def _received(self, epoch: int, message: m.Message) -> None:
        session = self.sessions.get(epoch)
        if session is None:
            return
        if session.role is m.Role.NODE:
            self._from_node(session, message)
        else:
            requests.handle(self, session, message)

    def _from_node(self, session: Session, message: m.Message) -> None:
        if isinstance(message, m.Join):
            joining.join(self, session, message)
            return
        node = session.node
        if node is None:
            self.close(session.epoch, "a node says Join first")
            return
        match message:
            case m.Report():
                work.take_report(self, node, message)
            case m.Heartbeat():
                self._heartbeat(session, node, message)
            case m.Started():
                work.take_started(self, node, message)
            case m.Recalled():
                work.take_recalled(self, node, message)
            case m.PhaseStarted():
                work.take_phase_started(self, node, message)
            case m.Inventory():
                joining.take_inventory(self, node, message)
            case m.NotHeld():
                joining.take_not_held(self, node, message)
            case m.Removed():
                ending.take_removed(self, node, message.job)
            case m.Leaving():
                ending.take_leaving(self, node)
            case m.FileContents() | m.FileListing() | m.FileRefused():
                files.answer(self, message)
            case _:
                self.close(session.epoch, f"{type(message).__name__} is not for the coordinator")
        ending.let_go(self, node)

    def _heartbeat(self, session: Session, node: Node, message: m.Heartbeat) -> None:
        node.heard_at = self.now.boottime
        if node.missing:
            node.missing = False
            self.touch_pool(node.pool)
            self.changed()
        self.send_at_once(session.epoch, m.HeartbeatAck(message.beat))

    def _session_closed(self, epoch: int) -> None:
        session = self.sessions.pop(epoch, None)
        if session is None:
            return
        self.waiters = [waiter for waiter in self.waiters if waiter.session != epoch]
        files.session_closed(self, epoch)
        node = session.node
        if node is not None and node.session == epoch:
            node.session = None
            node.joined = False
            if node.leaving and not node.owes:
                self.keep(NodeLeft(node.name, self.now))
            self.arm_lease(node)
            self.touch_pool(node.pool)
            self.changed()

    # ---- time

    def _forgive(self) -> None:
        """A deadline is long past: what nodes said meanwhile is unread, so each counts as heard now."""
        due = self.deadlines.next()
        if due is not None and self.now.boottime - due > STALL_S:
            for node in self.cluster.nodes.values():
                node.heard_at = self.now.boottime

    def _tick(self) -> None:
        for key in self.deadlines.expire(self.now.boottime):
            self._expired(key)

    def _expired(self, key: Key) -> None:
        match key:
            case ("lease", name):
                self._lease_looked_at(self.cluster.nodes[name])
            case ("retry", job, group):
                work.backoff_over(self, job, int(group))
            case ("timeout" | "grace" | "eligible", job):
                self.touch(job)
            case _:
                raise AssertionError(f"nothing is armed as {key}")

    def arm_lease(self, node: Node) -> None:
        """Look at the node's lease when it may have changed."""
        self.deadlines.set(("lease", node.name), self._lease_next(node))

    def _lease_next(self, node: Node) -> float:
        missed = node.heard_at + MISSED_BEATS * node.pool.heartbeat_s
        lease = node.lease_s
        return node.heard_at + lease * (1 + LEASE_DRIFT) + LEASE_MARGIN_S if node.missing else missed

    def _lease_looked_at(self, node: Node) -> None:
        """Deadlines of leases are not moved by each heartbeat; whoever is due is looked at here and armed again."""
        due = self._lease_next(node)
        if self.now.boottime < due:
            self.deadlines.set(("lease", node.name), due)
        elif not node.missing:
            node.missing = True
            self.touch_pool(node.pool)
            self.changed()
            self.arm_lease(node)
        else:
            for grant in list(node.grants.values()):
                work.return_all(self, grant, Returned.EXPIRED)
            if node.session is not None:
                self.close(node.session, "its lease ran out")

    # ---- consequences, once for all events of a batch

    def _settle(self) -> None:
        """Follow up until nothing changes: skips, ends, releases, placement, answers."""
        while self.touched:
            touched, self.touched = self.touched, {}
            for job_id in touched:
                if (job := self.cluster.jobs.get(job_id)) is not None:
                    ending.look_at(self, job)
        for pool in self.cluster.pools.values():
            if pool.dirty:
                work.place(self, placement.Round(pool))
                pool.dirty = False
        self.touched.clear()
        requests.answer_waiters(self)
