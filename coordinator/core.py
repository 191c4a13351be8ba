"""The coordinator's decisions: events in, `Ready` out; no clock, socket, file or chance.

`Cluster` holds what is durable and changes by records alone; `Desk` what is of this life only, and what the parts do
with it; this class takes each event to the part that decides. `coordinator.daemon` is the shell that drives it.
"""

from __future__ import annotations

from typing import Final, assert_never

from coordinator import (
    admission,
    draining,
    ending,
    files,
    joining,
    logs,
    nodes,
    on_end,
    placement,
    readers,
    requests,
    resting,
    shells,
    starting,
    work,
)
from coordinator.deadlines import Key
from coordinator.desk import Desk
from coordinator.events import (
    EndCallOver,
    EnrollAsked,
    Event,
    FinishAsked,
    PageRead,
    Ready,
    Received,
    RenewAsked,
    SessionClosed,
    SessionOpened,
    StoreState,
    Tick,
)
from coordinator.model import Node
from coordinator.records import NodeLeft, Record, Returned
from coordinator.render import joined
from coordinator.sessions import Session
from coordinator.staging import take_wanted
from wire import messages as m
from wire.instant import Instant

STALL_S: Final = 2.0
"""A deadline met so late means that this process slept: leases are counted anew."""


class Core(Desk):
    """Decides. Invariant: after `take_ready`, every promise made in a frame stands in a record before it."""

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
            draining.rearm(self, node)
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
            case SessionOpened():
                admission.open_session(self, event)
            case EnrollAsked():
                admission.enroll(self, event)
            case RenewAsked():
                admission.renew(self, event)
            case SessionClosed(session, _):
                self.session_closed(session)
            case FinishAsked(reason):
                ending.finish_all(self, reason)
            case StoreState(full):
                self.store_full = full
            case PageRead():
                self.account(readers.owner_of(self, event))
                readers.take_page(self, event)
                self.account(None)
            case EndCallOver():
                on_end.take_over(self, event)
            case _:
                assert_never(event)

    def take_ready(self) -> Ready:
        """What must be done now, decided after all events handled since the last time."""
        self._settle()
        if self.readers and self.ready.records:
            readers.wake(self)
        ready, self.ready = self.ready, Ready()
        ready.finished = self.finishing is not None and ending.all_over(self)
        return ready

    def next_deadline(self) -> Instant | None:
        """When `Tick` is due at the latest."""
        due = self.deadlines.next()
        return None if due is None else self.now.after(due - self.now.boottime)

    # ---- frames

    def _received(self, epoch: int, message: m.Message) -> None:
        session = self.sessions.get(epoch)
        if session is None:
            return
        if session.expires is not None and self.now.wall >= session.expires:
            admission.expired(self, epoch)  # its deadline comes after what was read before, if this process slept
            return
        if session.role not in m.SENDERS[type(message)]:
            whose = [role.value for role in m.Role if role in m.SENDERS[type(message)]]
            only = f", only by {joined(whose)}" if session.role is not m.Role.NODE else ""
            self.close(epoch, f"a {type(message).__name__} may not be sent by {session.role.value}{only}")
        elif session.role is m.Role.NODE:
            self._from_node(session, message)
        else:
            self.account(session.owner)
            requests.handle(self, session, message)
            self.account(None)

    def _from_node(self, session: Session, message: m.Message) -> None:
        if isinstance(message, m.Join):
            joining.join(self, session, message)
            if session.node is not None:
                self.deadlines.clear(("unjoined", str(session.epoch)))
            return
        node = session.node
        if node is None:
            self.close(session.epoch, "a node says Join first")
            return
        match message:
            case m.Report():
                starting.take_ends(self, node, message)
                work.take_report(self, node, message)
            case m.Heartbeat():
                self._heartbeat(session, node, message)
            case m.Started():
                work.take_started(self, node, message)
            case m.Recalled():
                work.take_recalled(self, node, message)
            case m.PhaseStarted(phase=m.Phase.START):
                starting.take_started(self, node, message)
            case m.PhaseStarted():
                work.take_phase_started(self, node, message)
            case m.Inventory():
                joining.take_inventory(self, node, message)
            case m.NotHeld():
                joining.take_not_held(self, node, message)
            case m.Removed():
                ending.take_removed(self, node, message.job)
            case m.Leaving():
                draining.take_leaving(self, node)
            case m.Health():
                nodes.take_health(self, node, message)
            case m.TaskOutputs():
                logs.take_outputs(self, node, message)
            case m.BlobWanted():
                take_wanted(self, node, message)
            case m.FileContents() | m.FileListing() | m.FileRefused():
                files.answer(self, node, message)
            case m.ShellOpened() | m.ShellOutput() | m.ShellWritten() | m.ShellEnded():
                shells.take(self, node, message)
            case _:
                self.close(session.epoch, f"{type(message).__name__} is not for the coordinator")
        draining.let_go(self, node)

    def _heartbeat(self, session: Session, node: Node, message: m.Heartbeat) -> None:
        node.heard_at = self.now.boottime
        if node.missing:
            node.missing = False
            self.touch_node(node)
            self.changed()
        self.send_at_once(session.epoch, m.HeartbeatAck(message.beat))

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
            case ("rest", name):
                resting.rested(self, self.cluster.nodes[name])
            case ("drain", name):
                self.touch_node(self.cluster.nodes[name])
            case ("timeout" | "grace" | "call" | "eligible" | "stuck", job):
                self.touch(job)
            case ("relay", number):
                files.overdue(self, int(number))
            case ("shell", number):
                shells.overdue(self, int(number))
            case ("unjoined", session):
                admission.unjoined(self, int(session))
            case ("expiry", session):
                admission.expired(self, int(session))
            case _:
                raise AssertionError(f"nothing is armed as {key}")

    def _lease_looked_at(self, node: Node) -> None:
        """Deadlines of leases are not moved by each heartbeat; whoever is due is looked at here and armed again."""
        due = self.lease_next(node)
        if self.now.boottime < due:
            self.deadlines.set(("lease", node.name), due)
        elif not node.missing:
            node.missing = True
            self.touch_node(node)
            self.changed()
            self.arm_lease(node)
        else:
            for grant in list(node.grants.values()):
                work.return_all(self, grant, Returned.EXPIRED)
            if node.drain is not None and node.session is None and node.empty and not node.left:
                self.keep(NodeLeft(node.name, self.now))
            if node.revoked:
                joining.give_up_debts(self, node)
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
        draining.settle(self)
        starting.pool_changed(self)
        for pool in self.cluster.pools.values():
            if pool.dirty:
                work.place(self, placement.Round(pool))
                pool.dirty = False
        shells.settle(self)
        self.touched.clear()
        logs.advance_follows(self)
        requests.answer_waiters(self)
