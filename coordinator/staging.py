"""Files that commands bring in from beside the submitted one: which there are, and which node may have them. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from coordinator.cluster import Cluster
from coordinator.desk import Desk
from coordinator.events import Serving
from coordinator.model import Node
from wire import messages as m
from wire.spec import Command, JobSpec


def named_in(document: Any) -> dict[str, str]:
    """sha256 → where it lands, of every such file of a document of which nothing is known yet."""
    commands = [pool.get("start") for pool in _dicts(document, "pools")]
    for job in _dicts(document, "jobs"):
        blocks = [job.get("preparation"), job.get("release"), *_dicts(job, "groups")]
        commands += [block.get("command") for block in blocks if isinstance(block, dict)]
    files = [file for command in commands for file in _dicts(command, "files")]
    return {file["digest"]: str(file.get("path", "")) for file in files if isinstance(file.get("digest"), str)}


def _dicts(plain: Any, name: str) -> list[dict[str, Any]]:
    rows = plain.get(name) if isinstance(plain, dict) else None
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _commands(spec: JobSpec) -> Iterator[Command]:
    yield from (block.command for block in (spec.preparation, spec.release) if block is not None)
    yield from (group.command for group in spec.groups)


def _digests(command: Command | None) -> set[str]:
    return {file.digest for file in command.files if file.digest is not None} if command is not None else set()


def named(cluster: Cluster) -> frozenset[str]:
    """All that must be kept here: what jobs and pools name."""
    found: set[str] = set()
    for pool in cluster.pools.values():
        found |= _digests(pool.options.start)
    for job in cluster.jobs.values():
        for command in _commands(job.spec):
            found |= _digests(command)
    return frozenset(found)


def take_wanted(desk: Desk, node: Node, message: m.BlobWanted) -> None:
    """A node asks for a piece: of a job that it has a round of, or of its pool's start, and of nothing else."""
    refused = _why_not(desk, node, message)
    if refused is not None:
        piece = m.BlobPiece(job=message.job, digest=message.digest, offset=message.offset, refused=refused)
        desk.send(node.session, piece)
    elif node.session is not None:
        desk.ready.pieces.append(Serving(node.session, message.job, message.digest, message.offset))


def _why_not(desk: Desk, node: Node, message: m.BlobWanted) -> str | None:
    if message.job == m.START_JOB:
        ours = message.digest in _digests(node.pool.options.start)
        return None if ours else "the pool's start brings no such file in any more"
    if not any(job == message.job for job, _ in node.owes):
        return "the node holds no such job"
    job = desk.cluster.jobs.get(message.job)
    if job is None:
        return "the job was deleted"
    ours = any(message.digest in _digests(command) for command in _commands(job.spec))
    return None if ours else "the job brings no such file in"
