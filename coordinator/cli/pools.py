"""`coordinator pool …`: the pools of the cluster."""

from __future__ import annotations

import sys

import click

from coordinator.cli import output, words
from coordinator.cli.failure import misused
from coordinator.cli.options import Family, Terms, facts


class _Pools(Family):
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
    """Show and change pools, and make nodes of hosts."""


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


@pool.command("apply")
@click.argument("file", metavar="FILE")
@click.option("--param", "pairs", multiple=True, metavar="K=V", help="Give a param its value; may be repeated.")
@click.option("--params", "params_file", metavar="FILE", help="Values of params: JSON, or lines `name = value`.")
@facts
def apply_pools(terms: Terms, file: str, pairs: tuple[str, ...], params_file: str | None) -> None:
    """Create the pools of a file, or change those that live: the options that their blocks name, and the start, which
    a pool without one in the file has no longer. Jobs in it are left alone. For operators."""
    from coordinator.cli import language, sending, sources

    source = sources.read_source(file)
    params = sources.params_of(pairs, params_file)
    compiled = language.compiled(source, params, pools_needed=False, as_document=terms.json, jobs_needed=False)
    pools = compiled.document["pools"]
    if not pools:
        raise misused(f"{file} declares no pool", "write `pool NAME { … }`")
    brought = {file["digest"] for spec in pools if spec["start"] for file in spec["start"]["files"]}
    compiled.document = {**compiled.document, "jobs": []}
    compiled.beside = {digest: path for digest, path in compiled.beside.items() if digest in brought}
    with terms.connect() as connection:
        body = sending.send(connection, compiled, sending.fresh_submission(), as_document=terms.json, update_pool=True)
    terms.show({"pools": body["pools"]}, lambda: [words.pool_change(changed) for changed in body["pools"]])
