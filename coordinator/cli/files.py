"""`coordinator files …`: files on a node, below its root only."""

from __future__ import annotations

import sys
import time

import click

from coordinator.cli import output, pieces, words
from coordinator.cli.logs import write_bytes
from coordinator.cli.options import Family, Terms, facts
from coordinator.render import table


@click.group(cls=Family)
def files() -> None:
    """Look at files on a node. PATH is below the node's root, for instance `shared/result.csv`."""


@files.command("ls")
@click.argument("node", metavar="NODE")
@click.argument("path", metavar="[PATH]", default=".")
@facts
def list_files(terms: Terms, node: str, path: str) -> None:
    """List a directory."""
    with terms.connect() as connection:
        listing = connection.ask("FilesList", node=node, path=path)
    entries = [{**entry, "changed_at": _time(entry["changed_at"])} for entry in listing["entries"]]
    if listing["truncated"]:
        output.warn(f"{path} has more than {len(entries):,} entries; these are the first ones")
    terms.show(
        entries,
        lambda: table(
            words.FILE_COLUMNS, [words.file_row(e, time.time()) for e in entries], width=output.width_of(sys.stdout)
        ),
    )


@files.command("cat")
@click.argument("node", metavar="NODE")
@click.argument("path", metavar="PATH")
@facts
def print_file(terms: Terms, node: str, path: str) -> None:
    """Print a file, byte by byte as it is."""
    with terms.connect() as connection:

        def read(offset: int, limit: int) -> pieces.Piece:
            piece: pieces.Piece = connection.ask("FilesRead", node=node, path=path, offset=offset, limit=limit)
            return piece

        for content in pieces.whole(read):
            write_bytes(content)


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
