"""From a file to its submitted jobs: what `run` and `submit` share."""

from __future__ import annotations

import os

from coordinator.cli import language
from coordinator.cli.connection import Connection
from coordinator.cli.failure import Failure


def send(
    connection: Connection, compiled: language.Compiled, submission: str, *, as_document: bool
) -> list[dict[str, str]]:
    """Submit every job of a compiled file, all or none; `[{"id", "name"}]`."""
    try:
        body = connection.submit(compiled.document, submission, source=compiled.source.name, spans=compiled.spans)
    except Failure as failure:
        if failure.diagnostics:
            raise language.refused(compiled.source, failure.diagnostics, as_document=as_document) from None
        raise
    jobs: list[dict[str, str]] = body["jobs"]
    return jobs


def fresh_submission() -> str:
    return os.urandom(16).hex()
