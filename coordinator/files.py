"""Files on nodes: a person's request becomes one to the node, and the node's answer the person's.

One piece at a time is asked for, so whoever reads slowly holds nothing up but himself; when either session ends the
relay ends with it. A node may say anything, or nothing: it is given its time, and no more is taken than was asked for.
"""

from __future__ import annotations

from typing import Final

from coordinator import access
from coordinator.desk import Desk
from coordinator.finding import RefusedError, check_own, find_job, find_node
from coordinator.model import Node
from coordinator.sessions import Follow, Instead, Relay, Session
from wire import messages as m
from wire.limits import MAX_CHUNK

Plain = dict[str, object]

MAX_RELAYS: Final = 1024
"""Requests to nodes under way at once, with those that wait for more to be written."""
MAX_RELAYS_EACH: Final = 32
"""Of one connection: a node that never answers must not let one person take everybody's."""
RELAY_S: Final = 30.0
"""For a node to answer; longer than it waits for more (`agentd.session.FOLLOW_PATIENCE_S`)."""
MAX_SIZE: Final = (1 << 62) - 1
MAX_PATH: Final = 4096
MAX_PART: Final = 255
"""Bytes of a path, and of one name in it, as the kernel takes them."""


def read_file(desk: Desk, session: Session, message: m.FilesRead) -> None:
    """`files cat`: a piece of a file below the node's root, for those whom it concerns."""
    node = find_node(desk, message.node)
    path = _permitted(desk, session, node, message.path)
    ask_read(desk, session.epoch, message.request, node, path, message.offset, message.limit)


def list_files(desk: Desk, session: Session, message: m.FilesList) -> None:
    """`files ls`."""
    node = find_node(desk, message.node)
    path = _permitted(desk, session, node, message.path)
    check_contact(node)
    relay = _open(desk, session.epoch, message.request, node, 0, {}, None, None)
    desk.send(node.session, m.ListFiles(relay, path))


def _permitted(desk: Desk, session: Session, node: Node, path: str) -> str:
    """The path, written plainly, if the session may read there: a job's tree as its logs, what is shared as who may
    look at the pool's jobs, all else as an operator. Raises RefusedError."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    longest = max((len(part.encode()) for part in parts), default=0)
    if path.startswith("/") or ".." in parts or "\0" in path or longest > MAX_PART or len(path.encode()) > MAX_PATH:
        raise RefusedError(
            m.RefusalCode.INVALID,
            f"{path[:200]!r} is no path on a node: it is relative to the node's root directory and holds no `..`",
        )
    job = desk.cluster.jobs.get(parts[1]) if parts[:1] == ["workitems"] and len(parts) > 1 else None
    pool = node.pool.name
    if job is not None:
        check_own(desk, session, find_job(desk, session, job.id))
    elif not access.may_operate(desk, session, pool):
        if len(parts) > 1 and parts[0] == "workitems":
            find_job(desk, session, parts[1])
        if parts[:1] != ["shared"] or not desk.policy.may_look(session.owner, session.role, pool):
            raise RefusedError(
                m.RefusalCode.REFUSED,
                f"`{'/'.join(parts) or '.'}` on node `{node.name}` is for the operators of pool `{pool}`",
                way_out="`workitems/JOB` of your own jobs and `shared` can be read",
            )
    return "/".join(parts) or "."


# ---- the relay


def in_contact(node: Node) -> bool:
    return node.session is not None and node.joined


def check_contact(node: Node) -> None:
    """Raises RefusedError."""
    if not in_contact(node):
        raise RefusedError(m.RefusalCode.FAILED, f"node `{node.name}` is out of contact: its files can't be read now")


def ask_read(
    desk: Desk,
    session: int,
    request: int,
    node: Node,
    path: str,
    offset: int,
    limit: int,
    *,
    said: Plain | None = None,
    instead: Instead | None = None,
    follow: Follow | None = None,
) -> int:
    """Ask the node for a piece; the number of the relay. `said` goes into the answer; `instead` is what is answered
    when the node can not. With `follow` the node waits until there is more. Raises RefusedError."""
    check_contact(node)
    limit = max(0, min(limit, MAX_CHUNK))
    relay = _open(desk, session, request, node, limit, said or {}, instead, follow)
    desk.send(node.session, m.ReadFile(relay, path, offset, limit, follow is not None))
    return relay


def check_room(desk: Desk, session: int) -> None:
    """Whether the session may have one more request that waits for a node. Raises RefusedError."""
    waiting = [relay.session for relay in desk.relays.values()]
    waiting += [follow.session for follow in desk.follows if follow.relay is None]
    if len(waiting) >= MAX_RELAYS or waiting.count(session) >= MAX_RELAYS_EACH:
        raise RefusedError(m.RefusalCode.REFUSED, "too many files are being read just now: try again")


def _open(
    desk: Desk,
    session: int,
    request: int,
    node: Node,
    limit: int,
    said: Plain,
    instead: Instead | None,
    follow: Follow | None,
) -> int:
    if follow is None:
        check_room(desk, session)
    assert node.session is not None, "a node that is out of contact is asked for nothing"
    desk.last_relay += 1
    desk.relays[desk.last_relay] = Relay(
        session, request, node.name, node.session, limit, said=said, instead=instead, follow=follow
    )
    desk.deadlines.set(("relay", str(desk.last_relay)), desk.now.boottime + RELAY_S)
    return desk.last_relay


def answer(desk: Desk, node: Node, message: m.FileContents | m.FileListing | m.FileRefused) -> None:
    """A node answered: if it is the one that was asked, whoever asked is told."""
    relay = desk.relays.get(message.request)
    if relay is None or relay.node_session != node.session:
        return
    desk.close_relay(message.request)
    match message:
        case m.FileContents(_, content, size, end):
            if len(content) > relay.limit:
                sentence = f"{relay.node}: it answered with more than it was asked for"
                desk.refuse(relay.session, relay.request, m.RefusalCode.FAILED, sentence)
                return
            size = min(max(size, 0), MAX_SIZE)
            body = {"content": content, "size": size, "end": end or not content, **relay.said}
            desk.reply(relay.session, relay.request, body)
        case m.FileListing(_, entries, truncated):
            listed = [
                {"name": name, "directory": directory, "size": size, "changed_at": changed}
                for name, directory, size, changed in entries
            ]
            desk.reply(relay.session, relay.request, {"entries": listed, "truncated": truncated})
        case m.FileRefused(_, reason, missing):
            code = m.RefusalCode.UNKNOWN if missing else m.RefusalCode.FAILED
            desk.answer_instead(relay, code, f"{relay.node}: {reason}")


def overdue(desk: Desk, number: int) -> None:
    """The node did not answer in its time. Whoever follows hears that there is nothing yet."""
    relay = desk.relays.get(number)
    if relay is None:
        return
    desk.close_relay(number)
    if relay.follow is not None:
        desk.reply(relay.session, relay.request, {"content": b"", "size": 0, "end": True, **relay.said})
    else:
        sentence = f"node `{relay.node}` does not answer"
        desk.answer_instead(relay, m.RefusalCode.FAILED, sentence)
