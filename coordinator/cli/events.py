"""`coordinator events`: what happened, in order, from any event on; with -f also what happens."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from coordinator.cli import output
from coordinator.cli.options import Terms, facts
from coordinator.cli.words import ending
from coordinator.render import COLOUR_OF, paint, plain

if TYPE_CHECKING:
    from coordinator.cli.connection import Connection

Event = dict[str, Any]

_WIDTHS: Final = (15, 24, 16)
"""Of an event's id, time and kind: a stream has no widest row."""


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens, also over a restart of the coordinator.")
@click.option("--job", "job_id", metavar="JOB", help="Only of this job.")
@click.option("--since", type=click.IntRange(min=0), metavar="ID", default=0, help="Only what came after this event.")
@facts
def events(terms: Terms, follow: bool, job_id: str | None, since: int) -> None:
    """What happened, oldest first; an id is the same whenever it is asked for. A gap is said."""
    with terms.connect() as connection:
        job = str(connection.ask("JobShow", job=job_id)["id"]) if job_id is not None else None
        for page in pages_of(connection, since, job, follow=follow):
            output.say(*([output.as_json(event) for event in page] if terms.json else lines_of(page)))
            sys.stdout.flush()


def pages_of(connection: Connection, since: int, job: str | None, *, follow: bool) -> Iterator[list[Event]]:
    """Events after an id, a page at a time: all there are, or with `follow` until the job they are of is deleted."""
    while True:
        ask = connection.ask_patiently if follow else connection.ask
        body = ask("EventsRead", since=since, job=job, wait=follow)
        yield body["events"]
        since = int(body["next"])
        gone = job is not None and any(event["kind"] == "job.deleted" for event in body["events"])
        if gone or (body["end"] and not follow):
            return


def lines_of(page: list[Event]) -> list[str]:
    """A line each, for people."""
    colour = output.in_colour(sys.stdout)
    return [_line(event, colour) for event in page]


def _line(event: Event, colour: bool) -> str:
    number, time, kind = str(event["id"]), event["time"] or "", event["kind"]
    head = f"{number:>{_WIDTHS[0]}}  {time:<{_WIDTHS[1]}}  "
    word = f"{kind:<{_WIDTHS[2]}}"
    tone = COLOUR_OF.get(str(event["data"].get("result"))) if colour else None
    return plain(head) + (paint(word, tone) if tone else word) + "  " + plain(sentence_of(event))


def sentence_of(event: Event) -> str:
    """Of whom, where, and how."""
    data = event["data"]
    whose = event["task"] or event["job"] or data.get("name") or data.get("token") or ""
    where = f"on {event['node']}" if event["node"] and whose else event["node"] or ""
    pool = "" if whose else data.get("pool") or ""
    again = f"attempt {event['attempt']}" if (event["attempt"] or 0) > 1 else ""
    phase = {True: "succeeded", False: "failed"}.get(data.get("succeeded"), "")
    how = [
        phase
        or data.get("result")
        or data.get("verdict")
        or data.get("state")
        or data.get("cause")
        or data.get("how")
        or "",
        ending(data.get("exit_code"), data.get("signal")) if data.get("exit_code") != 0 else "",
        data.get("reason") or "",
        f"by {data['by']}" if data.get("by") else "",
        f"{data['from']} to {data['to']}" if event["kind"] == "gap" else "",
    ]
    told = ", ".join(str(part) for part in how if part)
    subject = " ".join(part for part in (whose, where, f"in pool {pool}" if where and pool else pool, again) if part)
    return f"{subject}: {told}" if subject and told else subject or told
