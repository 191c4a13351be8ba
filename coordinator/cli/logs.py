"""`coordinator logs`: the output of a task, of a preparation or of a release, wherever the node is."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from coordinator.cli import output, pieces
from coordinator.cli.failure import misused
from coordinator.cli.options import Terms, facts
from coordinator.cli.tasks import pages_of
from coordinator.cli.words import ending

if TYPE_CHECKING:
    from coordinator.cli.connection import Connection

PHASES = ("prep", "release", "start")
_WAYS = (
    "say whose: `logs JOB/TASK`, `logs JOB --node NODE --phase prep|release`, `logs --node NODE --phase start`, "
    "or `logs JOB --failed`"
)


@click.command()
@click.argument("whose", metavar="[TASK|JOB]", required=False)
@click.option("--stderr", is_flag=True, help="Its stderr instead of its stdout.")
@click.option("--attempt", type=click.IntRange(min=1), metavar="N", help="Of this attempt (default: the last one).")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines.")
@click.option("--node", metavar="NODE", help="With --phase: on this node.")
@click.option("--phase", type=click.Choice(PHASES), help="Of the job's preparation or release, or of the node's start.")
@click.option("--failed", "failures", is_flag=True, help="The stderr of every task of the job that failed.")
@facts
def logs(
    terms: Terms,
    whose: str | None,
    stderr: bool,
    attempt: int | None,
    tail: int | None,
    node: str | None,
    phase: str | None,
    failures: bool,
) -> None:
    """Print what a command wrote, byte by byte as it wrote it."""
    asked = _whose(whose, node, phase, failures)
    with terms.connect() as connection:
        if failures:
            _print_failures(connection, str(whose), tail)
        else:
            print_output(connection, {**asked, "stderr": stderr, "attempt": attempt}, tail)


def _whose(whose: str | None, node: str | None, phase: str | None, failures: bool) -> dict[str, Any]:
    """The fields of LogRead that say whose output it is."""
    if whose is not None and "/" in whose:
        if node or phase or failures:
            raise misused(f"{whose} is a task: --node, --phase and --failed go with a job")
        return {"task": whose}
    if failures and whose is not None and not (node or phase):
        return {"job": whose}
    if phase == "start" and node is not None and whose is None:
        return {"node": node, "phase": phase}
    if phase in ("prep", "release") and node is not None and whose is not None and not failures:
        return {"job": whose, "node": node, "phase": phase}
    raise misused("it is not clear whose output is meant", _WAYS)


def reader(connection: Connection, fields: dict[str, Any]) -> pieces.Read:
    """Reads pieces of one command's output."""

    def read(offset: int, limit: int) -> pieces.Piece:
        piece: pieces.Piece = connection.ask("LogRead", **fields, offset=offset, limit=limit)
        return piece

    return read


def print_output(connection: Connection, fields: dict[str, Any], tail: int | None) -> None:
    """To stdout, all of it or the last lines, as the bytes they are."""
    read = reader(connection, fields)
    for content in pieces.whole(read) if tail is None else [pieces.last_lines(read, tail)]:
        write_bytes(content)


def write_bytes(content: bytes) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def _print_failures(connection: Connection, job: str, tail: int | None) -> None:
    for page in pages_of(connection, job, state="failed"):
        for task in page:
            how = ending(task.get("exit_code"), task.get("signal")) or task.get("reason") or "failed"
            output.say(f"==> {task['id']} on {task.get('node')}: {how}")
            print_output(connection, {"task": task["id"], "stderr": True}, tail)
