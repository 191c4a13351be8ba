"""`coordinator pool …`: the pools of the cluster."""

from __future__ import annotations

import sys

import click

from coordinator.cli import output, words
from coordinator.cli.options import Terms, facts


class _Pools(click.Group):
    """Knows `bootstrap` by name: what it imports is needed by no other command."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), "bootstrap"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "bootstrap":
            from coordinator.cli.bootstrap import bootstrap_pool

            return bootstrap_pool
        return super().get_command(ctx, cmd_name)


@click.group(cls=_Pools)
def pool() -> None:
    """Show pools, and make nodes of hosts."""


@pool.command("list")
@facts
def list_pools(terms: Terms) -> None:
    """All pools, those that only an agent has named included."""
    with terms.connect() as connection:
        pools = connection.ask("PoolList")
    terms.show(
        pools,
        lambda: output.table(words.POOL_COLUMNS, [words.pool_row(p) for p in pools]),
    )


@pool.command("show")
@click.argument("pool_id", metavar="POOL")
@facts
def show_pool(terms: Terms, pool_id: str) -> None:
    """One pool: its options and its nodes."""
    with terms.connect() as connection:
        document = connection.ask("PoolShow", pool=pool_id)
    terms.show(document, lambda: words.pool_lines(document, output.in_colour(sys.stdout)))
