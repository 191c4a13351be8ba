"""`coordinator check`: what is wrong with files, all of it at once; asks no coordinator."""

from __future__ import annotations

import sys
from typing import Final

import click

from coordinator.cli import language, output, sources
from coordinator.cli.failure import Exit
from coordinator.cli.options import Terms, shaped

FORMS: Final = ("human", "short", "json")


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--format", "form", type=click.Choice(FORMS), default=None, help="Default: human.")
@shaped
def check(terms: Terms, files: tuple[str, ...], form: str | None) -> int:
    """Print the diagnostics of files. Exit status 0 without errors, 1 with.

    A param without a value is no error here. `-o json` is `--format json`.
    """
    form = form or ("json" if terms.json else "human")
    checked = [language.checked(sources.read_source(path)) for path in files]
    if form == "json":
        output.emit([document for one in checked for document in one.documents()])
    else:
        for one in checked:
            sys.stdout.write(one.rendered(short=form == "short", colour=output.in_colour(sys.stdout)))
    return int(Exit.FAILED if any(one.errors for one in checked) else Exit.DONE)
