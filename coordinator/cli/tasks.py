"""`coordinator task …`: the tasks of a job, page by page, and one task with its attempts."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from coordinator.cli import output, words
from coordinator.cli.failure import misused
from coordinator.cli.options import Family, Terms, facts

if TYPE_CHECKING:
    from coordinator.cli.connection import Connection

PAGE: Final = 1000
STATES: Final = ("active", "preparing", "running", "completed", "succeeded", "failed", "cancelled", "skipped")


@click.group(cls=Family)
def task() -> None:
    """Show and cancel tasks. TASK is `JOB/price[17,fx]`, `JOB/price-17-fx` or `JOB/price#INDEX`."""


@task.command("list")
@click.argument("job_id", metavar="JOB")
@click.option("--with-state", "state", type=click.Choice(STATES), help="Only tasks in this state, or with this result.")
@click.option("--group", metavar="G", help="Only tasks of this `task` block.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most so many (default: all).")
@click.option("--after", metavar="TASK", help="Only tasks that come after this one.")
@facts
def list_tasks(
    terms: Terms, job_id: str, state: str | None, group: str | None, limit: int | None, after: str | None
) -> None:
    """The tasks of a job, in the order of the file and of their sweeps."""
    with terms.connect() as connection:
        pages = pages_of(connection, job_id, state=state, group=group, limit=limit, after=after)
        if terms.json:
            output.emit_each(itertools.chain.from_iterable(pages))
            return
        for n, page in enumerate(pages):
            lines = output.table(words.TASK_COLUMNS, [words.task_row(t, time.time()) for t in page])
            output.say(*(lines if n == 0 else lines[1:]))


def pages_of(
    connection: Connection,
    job: str,
    *,
    state: str | None = None,
    group: str | None = None,
    limit: int | None = None,
    after: str | None = None,
) -> Iterator[list[dict[str, Any]]]:
    """Tasks of a job, a page at a time; the first page comes even when it is empty."""
    left, first = limit, True
    while left is None or left > 0:
        asked = PAGE if left is None else min(PAGE, left)
        page = connection.ask("TaskList", job=job, state=state, group=group, limit=asked, after=after)
        if page or first:
            yield page
        if not page:
            return
        after, first = str(page[-1]["id"]), False
        left = None if left is None else left - len(page)


@task.command("show")
@click.argument("task_id", metavar="TASK")
@facts
def show_task(terms: Terms, task_id: str) -> None:
    """One task: how it stands, why, and each of its attempts."""
    _check_is_task(task_id)
    with terms.connect() as connection:
        document = connection.ask("TaskShow", task=task_id)
    terms.show(document, lambda: words.task_lines(document, time.time(), output.in_colour(sys.stdout)))


@task.command("cancel")
@click.argument("task_id", metavar="TASK")
@facts
def cancel_task(terms: Terms, task_id: str) -> None:
    """End one task as cancelled: one that runs is stopped, what waits for its success is skipped."""
    _check_is_task(task_id)
    with terms.connect() as connection:
        document = connection.ask("TaskCancel", task=task_id)
    stopping = document["state"] != "completed"
    terms.show(document, lambda: [f"{document['id']} is {'being stopped' if stopping else 'cancelled'}"])


def _check_is_task(name: str) -> None:
    if "/" not in name:
        raise misused(f"{name!r} names no task", "a task is JOB/TASK, for instance daily-3/price[17,fx]")
