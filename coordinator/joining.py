"""A node joins: who it is, and what it holds against what the ledger says. All recovery happens here."""

from __future__ import annotations

import re
from math import inf
from typing import Final

from coordinator import draining, ending, nodes, plausible, starting, work
from coordinator.claims import Claim
from coordinator.desk import Desk
from coordinator.identities import ANOTHER_TOKEN
from coordinator.model import JOIN_AGAIN_S, JOINS, Holding, Job, Node, Pool
from coordinator.placement import MAX_GRANT
from coordinator.preparation import TRANSITIONS, NodeJob
from coordinator.records import (
    DebtPaid,
    NodeJobState,
    NodeJoined,
    NodeLeft,
    PoolSet,
    Returned,
    RoundMoved,
    RoundVoided,
)
from coordinator.sessions import Session
from wire import messages as m
from wire.spec import PoolSpec

NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\Z")
MAX_SLOTS: Final = 4096
MAX_TAKEN_OVER: Final = 5
TAKEN_OVER_S: Final = 60.0
"""So often within so long a connection that lives may be replaced by its own agent."""
MAX_UNDECLARED: Final = 1_000
"""Pools that nodes have named and no file."""
MAX_HELD: Final = 100_000
"""Rounds and grants that one inventory may name: more is no node of ours."""


def join(desk: Desk, session: Session, message: m.Join) -> None:
    """Let a node in, or say why not."""
    reason = _why_not(desk, session, message)
    if reason is not None:
        desk.send(session.epoch, m.JoinRefused(reason))
        desk.close(session.epoch, reason)
        return
    reason = _not_yet(desk, session, message)
    if reason is not None:
        desk.close(session.epoch, reason)
        return
    pool = desk.cluster.pools.get(message.pool)
    if pool is None:  # `_why_not` has seen that they do not become too many
        desk.keep(PoolSet(PoolSpec(name=message.pool), declared=False, at=desk.now))
        pool = desk.cluster.pools[message.pool]
    known = desk.cluster.nodes.get(message.node)
    if known is not None:
        _count_takeovers(desk, known, message)
        _replace_session(desk, known)
        if known.incarnation != message.incarnation:
            _root_replaced(desk, known)
    node = _remember(desk, pool, message)
    session.node = node
    node.session, node.join, node.offer = session.epoch, message, Claim.offered(message.resources)
    node.moved = node.moved or node.fenced
    node.joined = node.missing = node.leaving = node.dismissed = node.fenced = False
    node.clearing = set()
    nodes.healthy(desk, node)  # it says so again, where it is not so
    node.last_session = session.epoch
    node.holding = Holding()
    node.heard_at = desk.now.boottime
    desk.arm_lease(node)
    desk.send(session.epoch, m.Joined(heartbeat_s=pool.heartbeat_s, lease_s=pool.lost_after_s, slots=node.slots))
    desk.changed()


def _why_not(desk: Desk, session: Session, message: m.Join) -> str | None:
    if session.node is not None:
        return "this connection has joined already"
    for kind, name in (("node", message.node), ("pool", message.pool)):
        if not NAME.match(name):
            return f"{name[:80]!r} is no name for a {kind}: letters, digits, `_`, `-` and `.`, 64 at most"
    if message.slots is not None and not 1 <= message.slots <= MAX_SLOTS:
        return f"a node has 1 to {MAX_SLOTS} slots, not {message.slots}"
    if (reason := plausible.too_much(message)) is not None:
        return reason
    for resource, amount in message.resources.items():
        if not 0 <= amount < inf:
            return f"a node offers 0 or more of a resource, and {amount} of {resource[:80]!r} is no such number"
    known = desk.cluster.nodes.get(message.node)
    reason = _not_as(desk, session, message) or (_superseded(desk, known, message) if known is not None else None)
    if reason is not None or known is None:
        return reason or _pool_too_many(desk, message)
    if session.key is None and known.connected and known.incarnation != message.incarnation:
        return f"another machine is connected as node `{message.node}`: give this one another --name"
    if known.pool.name != message.pool and known.grants:
        return f"node `{message.node}` still has work of pool `{known.pool.name}`"
    return _pool_too_many(desk, message)


def _not_as(desk: Desk, session: Session, message: m.Join) -> str | None:
    """A certificate is for one name, and maybe for one pool; without one, nobody takes a name that has one."""
    if session.key is None:
        if desk.cluster.identities.node(message.node) is None:
            return None
        return f"node `{message.node}` is a machine that joins over TLS: give this one another --name"
    if session.owner != message.node:
        return f"this certificate is for node `{session.owner}` and not for `{message.node}`"
    identity = desk.cluster.identities.by_key.get(session.key)
    if identity is None:
        return f"the certificate of node `{message.node}` is not known any more: {ANOTHER_TOKEN}"
    if identity.pool is not None and identity.pool != message.pool:
        return f"this node was admitted to pool `{identity.pool}` and not to `{message.pool}`"
    return None


def _superseded(desk: Desk, known: Node, message: m.Join) -> str | None:
    """A start of the agent that another one followed is over for good; it can't come back where there is one agent."""
    if message.life not in known.superseded:
        return None
    _raise_alarm(
        desk,
        known,
        f"node {known.name}: an agent that was superseded came back, so two agents live by this identity; the later "
        "one stays. If nobody copied this machine, revoke the node and let it join with a new token",
    )
    return f"another agent has joined as node `{known.name}` since: this one may not, for both have one identity"


def _raise_alarm(desk: Desk, node: Node, sentence: str) -> None:
    if node.alarm != sentence:
        node.alarm = sentence
        desk.ready.alarms.append(sentence)
        desk.changed()


def _not_yet(desk: Desk, session: Session, message: m.Join) -> str | None:
    """Why this node must try again later: what went by its name before may still be alive."""
    known = desk.cluster.nodes.get(message.node)
    if known is None:
        return None
    if session.epoch < known.last_session:
        return "a newer connection of this node has joined: try again"
    moved = (known.incarnation, known.boot) != (message.incarnation, message.boot)
    if session.key is not None and moved and known.session is not None and not known.missing:
        _fence(desk, known)
    if known.fenced and not known.missing:
        return f"another machine was node `{known.name}` until just now: try again when it has been silent for a while"
    if (known.corrected or _says_something_new(known, message)) and _too_often(desk, known):
        return f"node `{known.name}` joins again and again as another: try again in {JOIN_AGAIN_S:g} s"
    another_root = known.revoked and known.incarnation != message.incarnation  # the same one knows what it runs
    if (known.fenced or another_root) and known.grants:
        return f"what ran as node `{known.name}` may still have work until its lease is over: try again then"
    return None


def _pool_too_many(desk: Desk, message: m.Join) -> str | None:
    """A pool that no file has declared begins with its first node; a node must not fill the ledger with them."""
    pools = desk.cluster.pools
    if message.pool in pools or sum(not pool.declared for pool in pools.values()) < MAX_UNDECLARED:
        return None
    return f"there is no pool `{message.pool}`, and {MAX_UNDECLARED} others that no file declares: submit one that does"


def _says_something_new(node: Node, message: m.Join) -> bool:
    """Whether this join is to be kept."""
    known = (node.pool.name, node.incarnation, node.boot, node.life, node.slots)
    return node.left or known != (
        message.pool, message.incarnation, message.boot, message.life, message.slots or node.slots
    )  # fmt: skip


def _too_often(desk: Desk, node: Node) -> bool:
    """Counts this one."""
    now = desk.now.boottime
    node.joins_left = min(JOINS, node.joins_left + (now - node.joins_at) / JOIN_AGAIN_S)
    node.joins_at = now
    if node.joins_left < 1:
        return True
    node.joins_left -= 1
    return False


def _fence(desk: Desk, node: Node) -> None:
    """Shut out who is connected under this identity: what it runs ends, or its lease does. The newcomer waits."""
    assert node.session is not None
    reason = f"another machine came as node `{node.name}`, with the same key: this one may not go on"
    desk.discard(node.session)
    desk.send(node.session, m.JoinRefused(reason))
    desk.close(node.session, reason)
    node.fenced = True
    _raise_alarm(
        desk,
        node,
        f"node {node.name}: another machine came with its key while it was connected; the earlier one was shut out. "
        "If this was no quick restart, its key is on two machines: revoke the node and let it join with a new token",
    )


def _count_takeovers(desk: Desk, node: Node, message: m.Join) -> None:
    """One agent replaces its own connection when that broke unnoticed, now and then; two that are one process copied
    in its midst (a machine restored from a picture of its memory) take it from each other on and on."""
    if node.session is None or node.missing or not message.life or message.life != node.life:
        return
    now = desk.now.boottime
    node.taken_over = [*(at for at in node.taken_over if now - at < TAKEN_OVER_S), now]
    if len(node.taken_over) >= MAX_TAKEN_OVER:
        node.taken_over.clear()
        _raise_alarm(
            desk,
            node,
            f"node {node.name}: its connection was taken over {MAX_TAKEN_OVER} times within {TAKEN_OVER_S:g} s by the "
            "same start of its agent. If its network is sound, the machine was copied while it ran: stop both",
        )


def _replace_session(desk: Desk, node: Node) -> None:
    if node.session is not None:
        desk.send(node.session, m.Goodbye("a newer connection of this node took over"))
        desk.close(node.session, "a newer connection of this node took over")


def _root_replaced(desk: Desk, node: Node) -> None:
    """Another root directory: nothing is prepared there, and nothing there can pay the old debts."""
    for grant in list(node.grants.values()):
        work.return_all(desk, grant, Returned.GONE)
    give_up_debts(desk, node, "its root directory was replaced")


def give_up_debts(desk: Desk, node: Node, reason: str = "its identity was revoked") -> None:
    """Nothing can pay what this node owes any more; rounds of which it may still run something are not given up yet."""
    held = {(grant.job, grant.round) for grant in node.grants.values()}
    for job_id, number in list(node.owes):
        if (job_id, number) in held:
            continue
        if job_id not in desk.cluster.jobs:
            desk.keep(DebtPaid(job_id, node.name, number, desk.now))
            continue
        desk.keep(RoundMoved(job_id, node.name, number, NodeJobState.UNREACHED, reason, desk.now, True))


def revoked(desk: Desk, node: Node) -> None:
    """Its key is void: it is gone at once, but what it may still run is given to nobody before its lease is over."""
    if node.session is not None:
        reason = f"the certificate of node `{node.name}` was revoked"
        desk.discard(node.session)
        desk.send(node.session, m.JoinRefused(reason, revoked=True))
        desk.close(node.session, reason)
    desk.keep(NodeLeft(node.name, desk.now, revoked=True))
    give_up_debts(desk, node)
    desk.touch_node(node)
    desk.changed()


def _remember(desk: Desk, pool: Pool, message: m.Join) -> Node:
    """What it holds is counted by the longer of its old lease and the new one, until it has shown that it knows."""
    slots = message.slots or pool.options.slots or 1
    node = desk.cluster.nodes.get(message.node)
    lease_s = pool.lost_after_s if node is None or not node.grants else max(node.lease_s, pool.lost_after_s)
    now = (pool.name, message.incarnation, message.boot, slots, lease_s, message.life)
    if node is None or node.left or _known_as(node) != now:
        desk.keep(
            NodeJoined(
                message.node, pool.name, message.incarnation, message.boot, slots, desk.now, lease_s, message.life
            )
        )
    return desk.cluster.nodes[message.node]


def _known_as(node: Node) -> tuple[str, str, str, int, float, str]:
    return node.pool.name, node.incarnation, node.boot, node.slots, node.lease_s, node.life


def take_inventory(desk: Desk, node: Node, message: m.Inventory) -> None:
    """Collect the pieces; with the last one, make ledger and node agree."""
    holding = node.holding
    held_so_far = 0 if holding is None else len(holding.rounds) + len(holding.grants)
    if holding is None or held_so_far + len(message.rounds) + len(message.grants) > MAX_HELD:
        if node.session is not None:
            desk.close(node.session, "an inventory is sent once a session, and not without end")
        return
    for held in message.rounds:
        holding.rounds[(held.job, held.round)] = held.state
    for grant in message.grants:
        mask = holding.grants.get(grant.grant, 0)
        for first, count in grant.spans:
            if first >= 0 and 0 < count <= MAX_GRANT - first:
                mask |= ((1 << count) - 1) << first
        holding.grants[grant.grant] = mask
    if message.last:
        node.holding, holding.start = None, message.start
        _reconcile(desk, node, holding)


def _reconcile(desk: Desk, node: Node, holding: Holding) -> None:
    before = desk.recorded
    for grant in list(node.grants.values()):
        grant.recalled, grant.kept_back, grant.withdrawn, grant.stopping = False, 0, False, 0
        work.return_all(desk, grant, Returned.GONE, keep_mask=holding.grants.get(grant.id, 0))
    unknown = [grant for grant in holding.grants if grant not in node.grants]
    if unknown:
        desk.send(node.session, m.Drop(unknown))
    node.joined = True
    desk.contacts += 1
    if node.lease_s != node.pool.lost_after_s:
        told_s = node.pool.lost_after_s
        desk.keep(
            NodeJoined(node.name, node.pool.name, node.incarnation, node.boot, node.slots, desk.now, told_s, node.life)
        )
    for job_id, number in list(node.owes):
        _reconcile_round(desk, node, job_id, number, holding.rounds.pop((job_id, number), None))
        desk.touch(job_id)
    node.moved = False
    starting.reconcile(desk, node, holding.start)
    for (job_id, number), state in holding.rounds.items():
        if state is not m.RoundState.RELEASED:
            _release_unowed(desk, node, job_id, number)
    for job in desk.cluster.jobs.values():
        if job.deleting and node.name in job.node_numbers:
            ending.ask_removal(desk, job, node)
    node.corrected = desk.recorded > before
    if node.draining:
        draining.rearm(desk, node)
        draining.recall(desk, node)
    desk.touch_node(node)
    desk.changed()


def _release_unowed(desk: Desk, node: Node, job_id: str, number: int) -> None:
    """The node holds a round that it is not known to owe: its job was deleted, or its debt was given up when its key
    was revoked or it was forgotten. What is still there is released before the job comes there again."""
    job = desk.cluster.jobs.get(job_id)
    given_up = next((r for r in job.rounds if r.node == node.name and r.round == number), None) if job else None
    if job is not None and given_up is not None and given_up.owes_release:
        ending.release(desk, job, given_up, node)
    else:
        node.clearing.add(job_id)
        reason = ending.DELETED if job is None else job.end_reason or ending.DRAINED
        desk.send(node.session, m.ReleaseRound(job_id, number, reason))


def _reconcile_round(desk: Desk, node: Node, job_id: str, number: int, held: m.RoundState | None) -> None:
    job = desk.cluster.jobs.get(job_id)
    node_job = next((r for r in job.rounds if r.node == node.name and r.round == number), None) if job else None
    if job is None or node_job is None:
        if held is None:
            desk.keep(DebtPaid(job_id, node.name, number, desk.now))
        else:
            desk.send(node.session, m.ReleaseRound(job_id, number, "Deleted"))
    elif held is None:
        _never_held(desk, job, node_job, node)
    else:
        _align(desk, node_job, held)
        if node_job.state in (NodeJobState.RELEASING, NodeJobState.UNREACHED):
            ending.release(desk, job, node_job, node)


def _never_held(desk: Desk, job: Job, node_job: NodeJob, node: Node) -> None:
    """A round that the node does not know: it never arrived, or what the node knew of it is lost.

    What was granted proves nothing, it was behind the round's opening on the same way; what was reported does.
    """
    orphans = [g for g in node.grants.values() if (g.job, g.round) == (job.id, node_job.round)]
    if orphans:
        desk.send(node.session, m.Drop([grant.id for grant in orphans]))
    for grant in orphans:
        work.return_all(desk, grant, Returned.GONE)
    if node.moved:
        reason = "the machine that opened it was shut out when another came by its key"
        desk.keep(RoundMoved(job.id, node.name, node_job.round, NodeJobState.UNREACHED, reason, desk.now, True))
        return
    phases = (node_job.preparation, node_job.release)
    began = node_job.tasks_ended or node_job.running or any(view is not None and view.attempts for view in phases)
    if not began:
        desk.keep(RoundVoided(job.id, node_job.node, node_job.round, desk.now))
    else:
        reason = "the node no longer knows of it"
        desk.keep(RoundMoved(job.id, node_job.node, node_job.round, NodeJobState.WAIVED, reason, desk.now))


_HELD: Final = {
    m.RoundState.OPENED: NodeJobState.ABSENT,
    m.RoundState.PREPARING: NodeJobState.PREPARING,
    m.RoundState.PREPARED: NodeJobState.PREPARED,
    m.RoundState.BARRED: NodeJobState.BARRED,
    m.RoundState.RELEASING: NodeJobState.RELEASING,
    m.RoundState.RELEASED: NodeJobState.RELEASING,
}


def _align(desk: Desk, node_job: NodeJob, held: m.RoundState) -> None:
    """The node knows best how far a round is; a release once ordered is not taken back."""
    state = _HELD[held]
    if node_job.preparation is None and state is NodeJobState.ABSENT:
        state = NodeJobState.PREPARED
    if not node_job.waits and state is NodeJobState.BARRED:
        state = NodeJobState.PREPARED  # a preparation that nobody waits for bars nothing
    if node_job.state in (NodeJobState.RELEASING, state) or state not in TRANSITIONS[node_job.state]:
        return
    if node_job.state is NodeJobState.ABSENT and state is NodeJobState.BARRED:
        return  # an operator lets it try again: its failure was reported before this inventory
    desk.keep(RoundMoved(node_job.job, node_job.node, node_job.round, state, None, desk.now))


def take_not_held(desk: Desk, node: Node, message: m.NotHeld) -> None:
    """An order reached a node that never opened the round."""
    if (message.job, message.round) in node.owes:
        _reconcile_round(desk, node, message.job, message.round, None)
