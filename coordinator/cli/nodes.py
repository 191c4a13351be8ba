"""`coordinator node …`: the nodes of the cluster and how each stands."""

from __future__ import annotations

import sys

import click

from coordinator.cli import output, words
from coordinator.cli.options import Terms, facts


@click.group()
def node() -> None:
    """Show nodes, and shut them out."""


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


@node.command("revoke")
@click.argument("node_id", metavar="NODE")
@facts
def revoke_node(terms: Terms, node_id: str) -> None:
    """End a node's certificate and its connection: it has left, and gets nothing more."""
    from coordinator.cli.users import show_revoked

    with terms.connect() as connection:
        revoked = connection.ask("NodeRevoke", node=node_id)
    show_revoked(terms, revoked, "node")
