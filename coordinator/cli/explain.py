"""`coordinator explain JOB|TASK`: why it waits, why it failed, what is still owed, and what would help."""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Mapping
from typing import Any, Final

import click

from coordinator.cli import output
from coordinator.cli.options import Terms, facts
from coordinator.render import Colour, Column, age, count_of, paint, plain

NODE_COLUMNS: Final = (Column("NODE"), Column("STATE"), Column("WHY NOT", flexible=True))


@click.command()
@click.argument("target", metavar="JOB|TASK")
@facts
def explain(terms: Terms, target: str) -> None:
    """Say why a job or a task is as it is: the dominant reason first."""
    with terms.connect() as connection:
        document = connection.ask("Explain", target=target)
    terms.show(document, lambda: lines(document, time.time(), output.in_colour(sys.stdout)))


def lines(document: Mapping[str, Any], now: float, colour: bool) -> list[str]:
    """The answer for people."""
    width = output.width_of(sys.stdout) or output.DEFAULT_WIDTH
    head = f"{document['id']}: {document['reason']}"
    found = [paint(line, Colour.BOLD if colour else None) for line in _wrapped(head, width)]
    for cause in document["all"][1:]:
        found += _wrapped(f"also: {cause['reason']}", width, "  ")
    if document.get("next"):
        found += _wrapped(f"next: {document['next']}", width)
    if document["nodes"]:
        rows = [(line["node"], line["state"], line["reason"]) for line in document["nodes"]]
        found += ["", *output.table(NODE_COLUMNS, rows)]
        if document["nodes_left_out"]:
            found.append(f"and {count_of(document['nodes_left_out'], 'node')} more")
    if document["story"]:
        found.append("")
        for told in document["story"]:
            found += _wrapped(f"{age(told['time'], now):>7} ago  {told['text']}", width, hang=" " * 15)
    return found


def _wrapped(text: str, width: int, indent: str = "", hang: str = "  ") -> list[str]:
    return textwrap.wrap(
        plain(text), width, initial_indent=indent, subsequent_indent=indent + hang, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
