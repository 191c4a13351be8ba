"""Debugging shells: a job's owner is let into the directory of one of its commands, on the node where that ran.

Each is of one session of the person and of one of the node, and of the job's round there: with the first of them that
ends, it ends. What is on its way is bounded on both sides, so neither a flood nor a reader that sleeps costs more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, assert_never

from coordinator import access
from coordinator.desk import Desk
from coordinator.finding import RefusedError, find_job, find_node, find_task
from coordinator.logs import attempts_of
from coordinator.model import Job, Node
from coordinator.preparation import NodeJob
from coordinator.records import NodeJobState, ShellClosed, ShellOpened
from coordinator.sessions import Session, Shell
from wire import messages as m
from wire.bounds import MAX_TERMINAL, TERM
from wire.spec import Command

MAX_OF_A_JOB: Final = 4
MAX_OF_A_PERSON: Final = 8
MAX_ALL: Final = 64
MAX_TYPED: Final = 16 * 1024
"""Bytes of one request."""
WINDOW: Final = 64 * 1024
"""Bytes on their way to its terminal, and bytes of its output that wait here, as the node counts too."""
OPEN_S: Final = 30.0
"""For a node to open one."""
LINGER_S: Final = 60.0
"""For a person to read the end of one, and for a node to say that it is over."""
MAX_REASON: Final = 1000
MAX_PATH: Final = 4096
NUMBERS: Final = 1 << 20
"""Of shells of one life of this process; above them stands the session, so that no number is ever used twice."""

_OPEN: Final = (NodeJobState.ABSENT, NodeJobState.PREPARING, NodeJobState.PREPARED, NodeJobState.BARRED)


@dataclass(frozen=True, slots=True)
class Place:
    """A command's directory: of a task's attempt, or (group below zero) of the job's preparation."""

    job: Job
    node: Node
    round: NodeJob
    command: Command
    attempt: int
    group: int = -1
    index: int = -1


# ---- where


def _place(desk: Desk, session: Session, message: m.ShellOpen) -> Place:
    """Raises RefusedError."""
    if message.task is not None and (message.job, message.node, message.phase) == (None, None, None):
        return _of_task(desk, session, message, message.task)
    if message.task is None and message.phase is m.Phase.PREPARATION and message.job and message.node:
        return _of_preparation(desk, session, message, message.job, message.node)
    raise RefusedError(
        m.RefusalCode.INVALID,
        "a shell is where a task ran, or where a job's preparation ran: `JOB --node N --phase prep`",
    )


def _of_task(desk: Desk, session: Session, message: m.ShellOpen, name: str) -> Place:
    job, group, index = find_task(desk, session, name)
    _check_owner(session, job)
    where = attempts_of(job, group, index)
    label = f"{job.id}/{group.sweep.label(index)}"
    if not where:
        raise RefusedError(m.RefusalCode.FAILED, f"task `{label}` has not started: there is no directory of it yet")
    attempt = max(where) if message.attempt is None else message.attempt
    if attempt not in where:
        known = ", ".join(str(number) for number in sorted(where))
        raise RefusedError(m.RefusalCode.UNKNOWN, f"there is no attempt {attempt} of `{label}` here; there are {known}")
    node = desk.cluster.nodes[where[attempt]]
    return Place(job, node, _open_round(job, node.name), group.spec.command, attempt, group.number, index)


def _of_preparation(desk: Desk, session: Session, message: m.ShellOpen, name: str, node_name: str) -> Place:
    job = find_job(desk, session, name)
    _check_owner(session, job)
    node = find_node(desk, node_name)
    if job.preparation is None:
        raise RefusedError(m.RefusalCode.FAILED, f"job `{job.id}` has no preparation")
    node_job = _open_round(job, node.name)
    view = node_job.preparation
    begun = max(0 if view is None else view.attempts, node_job.running.get(m.Phase.PREPARATION, (0, 0.0))[0])
    if begun == 0:
        raise RefusedError(m.RefusalCode.FAILED, f"the preparation of job `{job.id}` has not begun on `{node.name}`")
    attempt = begun if message.attempt is None else message.attempt
    if not 1 <= attempt <= begun:
        raise RefusedError(m.RefusalCode.UNKNOWN, f"there is no attempt {attempt} of it there: the last one is {begun}")
    return Place(job, node, node_job, job.preparation.command, attempt)


def _check_owner(session: Session, job: Job) -> None:
    if not access.owns(session, job):
        raise RefusedError(
            m.RefusalCode.REFUSED,
            f"job `{job.id}` belongs to {job.owner}: its shells are for {job.owner} alone",
            way_out="`coordinator logs` and `coordinator files` are for the pool's operators too",
        )


def _open_round(job: Job, node: str) -> NodeJob:
    node_job = job.current.get(node)
    if node_job is None or node_job.state not in _OPEN:
        ended = node_job is not None or node in job.node_numbers
        how = "is over there: its directories are gone, or about to go" if ended else "has started nothing there"
        raise RefusedError(
            m.RefusalCode.FAILED, f"job `{job.id}` {how} (node `{node}`)",
            way_out="a job with `finish = manual` keeps its nodes until it is terminated" if ended else None,
        )  # fmt: skip
    return node_job


def _check_rights(desk: Desk, session: Session, place: Place) -> None:
    """Whether the command could be started there just now, by who asks. Raises RefusedError."""
    node, pool = place.node, place.job.spec.pool
    if node.session is None or not node.joined:
        raise RefusedError(m.RefusalCode.FAILED, f"node `{node.name}` is out of contact: no shell can be opened now")
    if place.command.elevated and not desk.policy.may_elevate(session.owner, session.role, pool):
        raise RefusedError(m.RefusalCode.REFUSED, f"the command is elevated, and {session.owner} may not elevate there")
    if place.command.elevated and not node.elevates:
        raise RefusedError(m.RefusalCode.FAILED, f"the command is elevated, and node `{node.name}` elevates none now")


def _check_room(desk: Desk, job: Job) -> None:
    counted = (
        (sum(shell.job == job.id for shell in desk.shells.values()), MAX_OF_A_JOB, f"of job `{job.id}`"),
        (sum(shell.by == job.owner for shell in desk.shells.values()), MAX_OF_A_PERSON, f"of {job.owner}"),
        (len(desk.shells), MAX_ALL, "on this cluster"),
    )
    for count, most, whose in counted:
        if count >= most:
            raise RefusedError(m.RefusalCode.REFUSED, f"{count} shells {whose} are open already: close one first")


# ---- what people ask


def open_shell(desk: Desk, session: Session, message: m.ShellOpen) -> None:
    """Answered when the node has opened it, or can not."""
    place = _place(desk, session, message)
    _check_rights(desk, session, place)
    _check_room(desk, place.job)
    node = place.node
    assert node.session is not None, "looked at just now"
    desk.last_shell += 1
    number = session.epoch * NUMBERS + desk.last_shell % NUMBERS
    size = _clamped(message.columns, message.rows)
    shell = Shell(
        number, session.epoch, session.owner, node.name, node.session, place.job.id, place.round.round,
        message.request, desk.now.boottime, size=size,
    )  # fmt: skip
    desk.shells[number] = shell
    desk.keep(
        ShellOpened(
            place.job.id, node.name, place.round.round, place.group, place.index, place.attempt, number, shell.by,
            desk.now,
        )
    )  # fmt: skip
    phase = m.Phase.PREPARATION if place.group < 0 else None
    term = message.term if TERM.fullmatch(message.term) else "dumb"
    order = m.OpenShell(
        shell=number, job=place.job.id, round=place.round.round, group=max(0, place.group), index=max(0, place.index),
        phase=phase, attempt=place.attempt, columns=size[0], rows=size[1], term=term,
    )  # fmt: skip
    desk.send(node.session, order)
    _look_again(desk, shell, OPEN_S)


def _clamped(columns: int, rows: int) -> tuple[int, int]:
    return max(1, min(columns, MAX_TERMINAL)), max(1, min(rows, MAX_TERMINAL))


def _find(desk: Desk, session: Session, number: int) -> Shell:
    """The session's own; another's does not exist. Raises RefusedError."""
    shell = desk.shells.get(number)
    if shell is None or shell.session != session.epoch or shell.opening is not None or not shell.watched:
        raise RefusedError(m.RefusalCode.UNKNOWN, "this connection has no such shell")
    return shell


def read(desk: Desk, session: Session, message: m.ShellRead) -> None:
    shell = _find(desk, session, message.shell)
    if shell.reading is not None:
        raise RefusedError(m.RefusalCode.REFUSED, "a request waits for the shell's output already")
    shell.reading = message.request
    _deliver(desk, shell)


def write(desk: Desk, session: Session, message: m.ShellWrite) -> None:
    """What does not fit on the way to the terminal is not taken."""
    shell = _find(desk, session, message.shell)
    if len(message.content) > MAX_TYPED:
        raise RefusedError(m.RefusalCode.INVALID, f"{MAX_TYPED} bytes at most can be typed at once")
    content = message.content[: WINDOW - shell.coming]
    shell.typed_at = desk.now.boottime
    if content and shell.ended is None:
        shell.coming += len(content)
        desk.send(shell.node_session, m.ShellInput(shell.number, content))
    taken = len(content) if shell.ended is None else len(message.content)
    desk.reply(session.epoch, message.request, {"taken": taken})


def resize(desk: Desk, session: Session, message: m.ShellResize) -> None:
    shell = _find(desk, session, message.shell)
    shell.size = _clamped(message.columns, message.rows)
    if shell.resized is None:
        _tell_size(desk, shell)
    desk.reply(session.epoch, message.request, {})


def _tell_size(desk: Desk, shell: Shell) -> None:
    """One at a time: whoever pulls at a window costs the node no more than it takes."""
    shell.resized = shell.size
    desk.send(shell.node_session, m.ShellSize(shell.number, *shell.size))


def close(desk: Desk, session: Session, message: m.ShellClose) -> None:
    shell = _find(desk, session, message.shell)
    _leave(desk, shell)
    desk.reply(session.epoch, message.request, {})


ANSWERS: Final[dict[type[m.Message], Callable[..., None]]] = {
    m.ShellOpen: open_shell,
    m.ShellRead: read,
    m.ShellWrite: write,
    m.ShellResize: resize,
    m.ShellClose: close,
}


# ---- what nodes say


def take(desk: Desk, node: Node, message: m.ShellOpened | m.ShellOutput | m.ShellWritten | m.ShellEnded) -> None:
    """Of shells that were not asked of this node in this session its word is worth nothing."""
    shell = desk.shells.get(message.shell)
    if shell is None or not shell.held or shell.node_session != node.session:
        return
    match message:
        case m.ShellOpened(_, directory):
            _opened(desk, shell, directory)
        case m.ShellOutput(_, content):
            _output(desk, shell, content)
        case m.ShellWritten(_, 0):
            told, shell.resized = shell.resized, None
            if told is not None and told != shell.size and shell.ended is None:
                _tell_size(desk, shell)
        case m.ShellWritten(_, count):
            shell.coming = max(0, shell.coming - max(0, count))
        case m.ShellEnded(_, exit_code, signal, reason):
            shell.held = False
            _conclude(desk, shell, None if reason is None else reason[:MAX_REASON], exit_code, signal)
        case _:
            assert_never(message)


def _opened(desk: Desk, shell: Shell, directory: str) -> None:
    if shell.opening is None or shell.ended is not None:
        return
    body = {"shell": shell.number, "node": shell.node, "directory": directory[:MAX_PATH]}
    desk.reply(shell.session, shell.opening, body)
    shell.opening, shell.typed_at = None, desk.now.boottime
    _look_again(desk, shell, desk.policy.shells.idle_s)


def _output(desk: Desk, shell: Shell, content: bytes) -> None:
    if shell.ended is not None:
        return
    if shell.opening is not None or len(shell.output) + len(content) > WINDOW:
        _cut(desk, shell, f"node `{shell.node}` sent more of it than was asked for")
        return
    shell.output += content
    _deliver(desk, shell)


def _deliver(desk: Desk, shell: Shell) -> None:
    """Answer who reads, if there is something to tell, and let as much come as was taken."""
    if shell.reading is None or not (shell.output or shell.ended is not None):
        return
    content = bytes(shell.output)
    shell.output.clear()
    desk.reply(shell.session, shell.reading, {"content": content, "ended": shell.ended})
    shell.reading = None
    if shell.ended is not None:
        shell.watched = False
        _sweep(desk, shell)
    elif content:
        desk.send(shell.node_session, m.ShellTaken(shell.number, len(content)))


# ---- how they end


def _conclude(
    desk: Desk, shell: Shell, reason: str | None, exit_code: int | None = None, signal: int | None = None
) -> None:
    """It is over, whoever said so first."""
    if shell.ended is None:
        shell.ended = {"exit_code": exit_code, "signal": signal, "reason": reason}
        if shell.job in desk.cluster.jobs:
            desk.keep(ShellClosed(shell.job, shell.node, shell.round, shell.number, shell.by, desk.now))
        if shell.opening is not None:
            why = reason or "it was over at once"
            desk.refuse(shell.session, shell.opening, m.RefusalCode.FAILED, f"no shell on `{shell.node}`: {why}")
            shell.watched = False
        _look_again(desk, shell, LINGER_S)
        _deliver(desk, shell)
    _sweep(desk, shell)


def _cut(desk: Desk, shell: Shell, reason: str) -> None:
    """End it on the node, and tell the person why."""
    if shell.held and not shell.closed:
        shell.closed = True
        desk.send(shell.node_session, m.CloseShell(shell.number))
    _conclude(desk, shell, reason)


def _leave(desk: Desk, shell: Shell) -> None:
    """The person looks no more."""
    shell.watched, shell.reading = False, None
    shell.output.clear()
    _cut(desk, shell, "it was closed")


def _sweep(desk: Desk, shell: Shell) -> None:
    if not shell.watched and not shell.held:
        desk.shells.pop(shell.number, None)
        desk.deadlines.clear(("shell", str(shell.number)))


def settle(desk: Desk) -> None:
    """End those whose person, node or round is not there any more."""
    for shell in list(desk.shells.values()):
        node, job = desk.cluster.nodes[shell.node], desk.cluster.jobs.get(shell.job)
        if shell.watched and shell.session not in desk.sessions:
            _leave(desk, shell)
        if shell.held and node.session != shell.node_session:
            shell.held = False
            _conclude(desk, shell, f"node `{shell.node}` went out of contact")
        elif shell.ended is None and (job is None or not _is_open(job, shell)):
            _cut(desk, shell, f"job `{shell.job}` is over on node `{shell.node}`, and so is what looks into it")


def _is_open(job: Job, shell: Shell) -> bool:
    node_job = job.current.get(shell.node)
    return node_job is not None and node_job.round == shell.round and node_job.state in _OPEN


# ---- time


def _look_again(desk: Desk, shell: Shell, within_s: float) -> None:
    desk.deadlines.set(("shell", str(shell.number)), desk.now.boottime + within_s)


def overdue(desk: Desk, number: int) -> None:
    """Something that was awaited of it did not come in its time."""
    shell = desk.shells.get(number)
    if shell is None:
        return
    if shell.ended is not None:  # who has not read that, or not said that, has had its time
        shell.watched = shell.held = False
        _sweep(desk, shell)
        return
    idle_s = desk.policy.shells.idle_s
    if shell.opening is not None:
        _cut(desk, shell, f"node `{shell.node}` does not answer")
    elif (left := shell.typed_at + idle_s - desk.now.boottime) > 0:
        _look_again(desk, shell, left)
    else:
        _cut(desk, shell, f"nothing was typed for {idle_s:g} s")
