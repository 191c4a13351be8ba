"""From a file to its submitted jobs: what `run` and `submit` share."""

from __future__ import annotations

import os
from typing import Any

from coordinator.cli import language, sources
from coordinator.cli.connection import Connection
from coordinator.cli.failure import Failure, misused, reason_of


def send(
    connection: Connection,
    compiled: language.Compiled,
    submission: str,
    *,
    as_document: bool,
    once: bool = False,
    update_pool: bool = False,
) -> dict[str, Any]:
    """Submit every job of a compiled file, all or none; `{"jobs": [{"id", "name"}]}`. What its commands bring in goes
    first."""
    for digest, path in compiled.beside.items():
        _bring(connection, compiled.source, path, digest)
    more = {"source": compiled.source.name, "spans": compiled.spans, "once": once, "update_pool": update_pool}
    try:
        body: dict[str, Any] = connection.submit(compiled.document, submission, **more)
    except Failure as failure:
        if failure.diagnostics:
            raise language.refused(compiled.source, failure.diagnostics, as_document=as_document) from None
        raise
    return body


def _bring(connection: Connection, source: sources.Source, path: str, digest: str) -> None:
    """Upload a file that lies beside the submitted one."""
    from dsl.beside import open_beside

    try:
        fd = open_beside(language.directory_of(source), path)
        try:
            connection.upload(lambda at, count: os.pread(fd, count, at), digest, os.fstat(fd).st_size)
        finally:
            os.close(fd)
    except OSError as error:
        raise misused(f"{path} can't be brought in: {reason_of(error)}") from None
    except Failure as failure:
        if failure.code == "no_coordinator":
            raise
        raise Failure(failure.exit, failure.code, f"{path} can't be brought in: {failure.message}") from None


def fresh_submission() -> str:
    return os.urandom(16).hex()
