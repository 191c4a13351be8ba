"""`coordinator logs`: the output of a task, of a preparation or of a release, wherever the node is."""

from __future__ import annotations

import re
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import click

from coordinator.cli import output, pieces
from coordinator.cli.failure import Exit, Failure, misused
from coordinator.cli.options import Terms, facts
from coordinator.cli.tasks import pages_of
from coordinator.cli.words import ending

if TYPE_CHECKING:
    from coordinator.cli.connection import Connection

FAILED_LINES: Final = 100
"""Of each output of a failed task, unless --tail says otherwise."""
_AGAIN_S: Final = 0.2
"""Between two requests that are answered by nothing."""
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
@click.option("-f", "--follow", is_flag=True, help="Go on until the attempt has ended, and with the next one.")
@click.option("--node", metavar="NODE", help="With --phase: on this node.")
@click.option("--phase", type=click.Choice(PHASES), help="Of the job's preparation or release, or of the node's start.")
@click.option("--failed", "failures", is_flag=True, help="What every task of the job that failed wrote last.")
@facts
def logs(
    terms: Terms,
    whose: str | None,
    stderr: bool,
    attempt: int | None,
    tail: int | None,
    follow: bool,
    node: str | None,
    phase: str | None,
    failures: bool,
) -> None:
    """Print what a command wrote, byte by byte as it wrote it."""
    asked = _whose(whose, node, phase, failures)
    if failures and (follow or attempt):
        raise misused("--failed prints what is over: -f and --attempt go with one task")
    with terms.connect() as connection:
        if failures:
            _print_failures(connection, str(whose), stderr, tail)
        elif follow:
            follow_output(connection, {**asked, "stderr": stderr, "attempt": attempt}, tail)
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
    """Reads pieces of one command's output. What does not come from its node is said once, and so is what is left
    out."""
    said: set[str] = set()

    def read(offset: int, limit: int) -> pieces.Piece:
        piece: pieces.Piece = connection.ask("LogRead", **fields, offset=offset, limit=limit)
        _say_what_is_missing(piece, said)
        return piece

    return read


_REMOVED: Final = re.compile(r"(\S+): Could not read .*: there is no such file\.", re.DOTALL)
"""What a node says of an output whose directory is gone, as it has to be sooner or later."""


def _say_what_is_missing(piece: pieces.Piece, said: set[str]) -> None:
    remarks = []
    if piece.get("kept"):
        why = str(piece.get("why"))
        gone = _REMOVED.fullmatch(why)
        remarks.append(f"kept: {piece['kept']}; {f'node `{gone[1]}` has removed it' if gone else why}")
    elif piece.get("why"):
        remarks.append(str(piece["why"]))
    if piece.get("skipped"):
        remarks.append(f"{piece['skipped']:,} bytes between were not kept")
    for remark in remarks:
        if remark not in said:
            said.add(remark)
            sys.stdout.flush()
            output.remark(remark)


def print_output(connection: Connection, fields: dict[str, Any], tail: int | None) -> None:
    """To stdout, all of it or the last lines, as the bytes they are."""
    read = reader(connection, fields)
    for content in pieces.whole(read) if tail is None else pieces.last_lines(read, tail):
        write_bytes(content)


def follow_output(connection: Connection, fields: dict[str, Any], tail: int | None) -> None:
    """To stdout as it is written, until the attempt has ended (of a task: the last one, unless one was named). What
    waits for more waits at the coordinator and at the node; both may go away and come back meanwhile."""
    only = fields["attempt"]
    attempt, offset = only, 0
    said: set[str] = set()
    if tail is not None:
        attempt, offset = _before_last_lines(connection, fields, tail)
    while True:
        asked = time.monotonic()
        piece = connection.ask_patiently(
            "LogRead", **{**fields, "attempt": attempt}, offset=offset, limit=pieces.PIECE, follow=True
        )
        attempt = piece["attempt"]
        _say_what_is_missing(piece, said)
        content = pieces.content_of(piece)
        write_bytes(content)
        offset += int(piece.get("skipped", 0)) + len(content)
        if piece["over"] and piece["end"]:
            if only is not None or piece["last"]:
                return
            output.remark(f"attempt {attempt} has ended; attempt {attempt + 1} follows")
            attempt, offset = attempt + 1, 0
        elif not content:
            time.sleep(max(0.0, _AGAIN_S - (time.monotonic() - asked)))


def _before_last_lines(connection: Connection, fields: dict[str, Any], tail: int) -> tuple[int | None, int]:
    """The attempt to follow, and where its last lines begin; from the beginning if there is nothing yet."""
    try:
        first = connection.ask("LogRead", **fields, offset=0, limit=1)
        read = reader(connection, {**fields, "attempt": first["attempt"]})
        lines = sum(map(len, pieces.last_lines(read, tail)))
        return first["attempt"], max(0, int(first["size"]) - lines)
    except Failure as failure:
        if failure.exit is not Exit.FAILED:
            raise
        return fields["attempt"], 0


def write_bytes(content: bytes) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def _print_failures(connection: Connection, job: str, stderr: bool, tail: int | None) -> None:
    """What each wrote last: of both outputs, or of stderr alone. One that is nowhere any more does not end it."""
    for page in pages_of(connection, job, state="failed"):
        for task in page:
            how = ending(task.get("exit_code"), task.get("signal")) or task.get("reason") or "failed"
            sys.stdout.flush()
            output.say(f"==> {task['id']} on {task.get('node')}: {how}")
            for which in (True,) if stderr else (False, True):
                try:
                    print_output(
                        connection, {"task": task["id"], "stderr": which}, FAILED_LINES if tail is None else tail
                    )
                except Failure as failure:
                    if failure.exit is Exit.REFUSED:
                        raise
                    output.remark(failure.message)
                    break
