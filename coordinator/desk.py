"""What every part of the core works at: the durable cluster, this life's sessions and deadlines, and the `Ready` in
the making. The parts (`work`, `joining`, `ending`, `requests` ...) import it; `Core` imports the parts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from coordinator.cluster import Cluster
from coordinator.deadlines import Deadlines, Key
from coordinator.events import Ready
from coordinator.identities import Certificates
from coordinator.model import LEASE_DRIFT, LEASE_MARGIN_S, MISSED_BEATS, Node, Pool
from coordinator.policy import Policy
from coordinator.records import CLUSTER_SCOPE, NodeLeft, Record, scope_of
from coordinator.sessions import Follow, Instead, Lookup, Reader, Relay, Session, Shell, Waiter
from wire import messages as m
from wire.instant import Instant

OPEN = Policy()
NO_CERTIFICATES = Certificates()


def nobody_counts(person: str | None) -> None:
    """What is done for whom is not counted."""


class Desk:
    """Invariant: what is durable changes by `keep` alone, and nothing leaves but through `ready`."""

    def __init__(self, policy: Policy = OPEN, certificates: Certificates = NO_CERTIFICATES) -> None:
        self.policy = policy
        self.certificates = certificates
        self.account: Callable[[str | None], None] = nobody_counts
        """Told for whom what follows is done (None: for all); whoever drives this core may count what it costs."""
        self.cluster = Cluster()
        self.sessions: dict[int, Session] = {}
        self.deadlines = Deadlines()
        self.waiters: list[Waiter] = []
        self.relays: dict[int, Relay] = {}
        self.last_relay = 0
        self.shells: dict[int, Shell] = {}
        self.last_shell = 0
        self.readers: dict[int, Reader] = {}
        self.last_reader = 0
        self.calls: dict[str, Instant | None] = {}
        """Jobs whose `on_end` is being run, with when they were completed."""
        self.calls_due: dict[str, None] = {}
        """Those whose turn has not come."""
        self.recorded = 0
        """Records that were kept in this life."""
        self.follows: list[Follow] = []
        self.contacts = 0
        """How often a node came or went in this life."""
        self.bodies: dict[str, bytes] = {}
        self.backoffs: dict[tuple[str, int], list[tuple[float, int]]] = {}
        self.removing: dict[str, set[str]] = {}
        """Deleted jobs, with the nodes whose directories are not removed yet."""
        self.emptying: dict[str, None] = {}
        """Nodes that are drained or leave, and maybe some that no longer do."""
        self.touched: dict[str, None] = {}
        """Jobs that something happened to since they were last looked at."""
        self.store_full = False
        self.finishing: str | None = None
        self.version = 0
        self.now = Instant("", 0.0, 0.0)
        self.ready = Ready()

    def keep(self, record: Record) -> None:
        """Decide something durable: it is applied now and stored before anything of this `Ready` leaves."""
        self.ready.records.append(record)
        self.cluster.apply(record)
        self.version += 1
        self.recorded += 1
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
            if job.spec.pool == pool.name and job.unsettled:
                self.touched[job.id] = None

    def touch_node(self, node: Node) -> None:
        """Something happened to the node: so it did to its pool, and to what it ran when it was in another one."""
        self.touch_pool(node.pool)
        for job in self.cluster.jobs.values():
            if job.unsettled and node.name in job.node_numbers:
                self.touched[job.id] = None

    def forget(self, scope: str) -> None:
        """Drop the rows of a scope with the next commit."""
        self.ready.records = [record for record in self.ready.records if scope_of(record) != scope]
        self.ready.forget.append(scope)
        self.cluster.forget(scope)

    def send(self, session: int | None, message: m.Message) -> None:
        """Send after the commit; to nobody when there is no session."""
        if session is not None and session in self.sessions:
            self.ready.frames.append((session, message))

    def send_at_once(self, session: int, message: m.Message) -> None:
        """Send without waiting for a commit: for what promises nothing durable."""
        self.ready.at_once.append((session, message))

    def close(self, session: int, reason: str) -> None:
        """Close a session after its frames."""
        self.ready.close.append((session, reason))
        self.session_closed(session)

    def discard(self, session: int) -> None:
        """What is on its way to the session, or about to be, is no longer for it."""
        self.ready.frames = [frame for frame in self.ready.frames if frame[0] != session]
        self.ready.discard.append(session)

    def reply(self, session: int, request: int, body: object) -> None:
        """Answer a request."""
        self.send(session, m.Reply(request, body))

    def refuse(self, session: int, request: int, code: m.RefusalCode, message: str, **more: object) -> None:
        """Answer a request with a sentence."""
        self.send(session, m.Refused(request=request, code=code, message=message, **more))  # type: ignore[arg-type]

    def why_nothing_new(self) -> str | None:
        """Why no job may begin, or begin again, here and now; or None."""
        if self.store_full:
            return "the coordinator's disk is full: nothing new can be kept; free some space and try again"
        return "the coordinator is finishing: it takes no new jobs" if self.finishing is not None else None

    def arm(self, key: Key, at: Instant) -> None:
        """Have `Tick` look at `key` when `at` has come."""
        self.deadlines.set(key, self.now.boottime + max(0.0, self.now.seconds_until(at)))

    def changed(self) -> None:
        """Something that people see changed without a record."""
        self.version += 1

    def arm_lease(self, node: Node) -> None:
        """Look at the node's lease when it may have changed."""
        self.deadlines.set(("lease", node.name), self.lease_next(node))

    def lease_next(self, node: Node) -> float:
        """When the node's lease is to be looked at: first for three missed heartbeats, then for its end."""
        return self.lease_end(node) if node.missing else node.heard_at + MISSED_BEATS * node.pool.heartbeat_s

    def lease_end(self, node: Node) -> float:
        """When what it was given surely runs there no longer, if nothing more is heard of it."""
        return node.heard_at + node.lease_s * (1 + LEASE_DRIFT) + LEASE_MARGIN_S

    def session_closed(self, epoch: int) -> None:
        """A session is over: who waits in it waits no more, and a node is out of contact."""
        session = self.sessions.pop(epoch, None)
        if session is None:
            return
        self.waiters = [waiter for waiter in self.waiters if waiter.session != epoch]
        self.readers = {number: reader for number, reader in self.readers.items() if reader.session != epoch}
        self.follows = [follow for follow in self.follows if follow.session != epoch]
        for kind in ("expiry", "unjoined"):
            self.deadlines.clear((kind, str(epoch)))
        self._end_relays(epoch)
        node = session.node
        if node is not None and node.session == epoch:
            node.session = None
            node.joined = False
            self.contacts += 1
            if node.draining and node.empty and not node.left:
                self.keep(NodeLeft(node.name, self.now))
            self.arm_lease(node)
            self.touch_node(node)
            self.changed()

    def close_relay(self, number: int) -> None:
        """The request to a node is answered, or is not to be: a late answer is dropped."""
        relay = self.relays.pop(number)
        self.deadlines.clear(("relay", str(number)))
        if relay.follow is not None:
            self.follows = [follow for follow in self.follows if follow is not relay.follow]

    def answer_instead(self, relay: Relay, code: m.RefusalCode, sentence: str) -> None:
        """The node can not: what was kept, or the sentence."""
        if relay.instead is None:
            self.refuse(relay.session, relay.request, code, sentence)
        else:
            self.answer_kept(relay.session, relay.request, relay.instead, code, sentence)

    def answer_kept(self, session: int, request: int, kept: Instead, code: m.RefusalCode, sentence: str) -> None:
        """Answer with what was kept, and why it does not come from the node."""
        if isinstance(kept, Lookup):
            lookup = replace(kept, session=session, request=request, code=code, sentence=sentence)
            self.ready.lookups.append(lookup)
        else:
            self.reply(session, request, {**kept, "why": sentence})

    def _end_relays(self, epoch: int) -> None:
        """Relays of a session that ended end with it, on either side; who follows waits for the node's return."""
        for number, relay in list(self.relays.items()):
            if epoch not in (relay.session, relay.node_session):
                continue
            follow = relay.follow
            self.close_relay(number)
            if relay.node_session != epoch:
                continue
            if follow is not None:
                follow.relay = follow.stands = None
                self.follows.append(follow)
            else:
                sentence = f"node `{relay.node}` went out of contact meanwhile"
                self.answer_instead(relay, m.RefusalCode.FAILED, sentence)
