"""`coordinator node …`: the nodes of the cluster and how each stands."""

from __future__ import annotations

import sys
from typing import Any

import click

from coordinator.cli import output, words
from coordinator.cli.durations import Duration
from coordinator.cli.failure import Failure, failed, interrupted
from coordinator.cli.options import Family, Terms, facts


@click.group(cls=Family)
def node() -> None:
    """Show nodes, empty them for maintenance, take them back, and shut them out."""


@node.command("list")
@facts
def list_nodes(terms: Terms) -> None:
    """All nodes, by pool."""
    with terms.connect() as connection:
        nodes = connection.rows("NodeList")
    terms.show(
        nodes,
        lambda: output.table(words.NODE_COLUMNS, [words.node_row(n) for n in nodes]),
    )


@node.command("show")
@click.argument("node_id", metavar="NODE")
@facts
def show_node(terms: Terms, node_id: str) -> None:
    """One node: its state, its slots and what it owes."""
    with terms.connect() as connection:
        document = connection.ask("NodeShow", node=node_id)
    terms.show(document, lambda: words.node_lines(document, output.in_colour(sys.stdout)))


@node.command("drain")
@click.argument("node_id", metavar="NODE")
@click.option(
    "--deadline",
    type=Duration(),
    default="1h",
    show_default=True,
    metavar="D",
    help="How long running tasks may go on; 0s stops them at once. Stopped tasks run elsewhere and spend no retry.",
)
@click.option("--no-wait", is_flag=True, help="Return at once; the drain goes on.")
@click.option("--reason", default="", metavar="TEXT", help="Shown to everybody who looks at the node.")
@facts
def drain_node(terms: Terms, node_id: str, deadline: float, no_wait: bool, reason: str) -> int:
    """Empty a node: no new work, running tasks until the deadline, then every release that it owes.

    Returns when the node is drained: its machine may be stopped then. It stays drained, also over restarts, until
    `node enable`. An interrupt leaves the drain going.
    """
    with terms.connect() as connection:
        try:
            document = connection.ask("NodeDrain", node=node_id, deadline_s=deadline, reason=reason)
            if not no_wait:
                document = connection.ask_patiently("NodeDrain", node=node_id, wait=True)
        except KeyboardInterrupt:
            raise interrupted(
                f"interrupted; the drain of {node_id} goes on", f"`coordinator node enable {node_id}` calls it off"
            ) from None
    terms.show(document, lambda: [f"{document['id']} is {document['state']}"])
    if no_wait or document["state"] in ("drained", "left"):
        return 0
    raise _not_drained(document)


def _not_drained(document: dict[str, Any]) -> Failure:
    name = document["id"]
    if document.get("drain") is None:
        return failed(f"{name} was enabled before it was drained")
    return failed(
        f"{name} is out of contact: it is drained when it comes back",
        f"if its machine is off for good, `coordinator node forget {name}` waives what it owes",
    )


@node.command("enable")
@click.argument("node_id", metavar="NODE")
@facts
def enable_node(terms: Terms, node_id: str) -> None:
    """Give a drained node work again; jobs prepare it anew. Also calls off a drain that is under way."""
    with terms.connect() as connection:
        document = connection.ask("NodeEnable", node=node_id)
    terms.show(document, lambda: [f"{document['id']} is {document['state']}"])


@node.command("forget")
@click.argument("node_id", metavar="NODE")
@click.option("--yes", is_flag=True, help="Don't ask.")
@facts
def forget_node(terms: Terms, node_id: str, yes: bool) -> None:
    """Give up a lost node: its tasks go elsewhere at once, and the releases that it owes are waived.

    The machine must be off, or its tasks run twice: nobody can tell a dead machine from a cut network. Without this
    its tasks go elsewhere when its lease is over, and it pays what it owes when it comes back.
    """
    question = f"Is the machine of {node_id} off? Its tasks will run elsewhere at once."
    if not yes and sys.stdin.isatty() and sys.stderr.isatty() and not click.confirm(question, err=True):
        raise failed(f"{node_id} was not forgotten")
    with terms.connect() as connection:
        document = connection.ask("NodeForget", node=node_id)
    terms.show(document, lambda: [f"{document['id']} is forgotten"])


@node.command("retry-prep")
@click.argument("node_id", metavar="NODE")
@click.option("--job", "job_id", required=True, metavar="JOB", help="The job whose preparation failed there.")
@facts
def retry_preparation(terms: Terms, node_id: str, job_id: str) -> None:
    """Let a node prepare once more for a job that it is barred for; the job's next task there begins it."""
    with terms.connect() as connection:
        row = connection.ask("NodeRetryPrep", node=node_id, job=job_id)
    terms.show(row, lambda: [f"{row['node']} prepares job `{job_id}` again, with its next task there"])


@node.command("revoke")
@click.argument("node_id", metavar="NODE")
@facts
def revoke_node(terms: Terms, node_id: str) -> None:
    """End a node's certificate and its connection: it has left, and gets nothing more."""
    from coordinator.cli.users import show_revoked

    with terms.connect() as connection:
        revoked = connection.ask("NodeRevoke", node=node_id)
    show_revoked(terms, revoked, "node")
