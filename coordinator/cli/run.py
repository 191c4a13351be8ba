"""`coordinator run FILE`: the whole thing on this machine, from the file to the last release."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import click

from coordinator.cli import language, output, private, sending, sources
from coordinator.cli.connection import Connection, NoCoordinator, connect_to
from coordinator.cli.embedded import Cluster
from coordinator.cli.failure import Exit, Failure, interrupted, misused
from coordinator.cli.follow import Follower
from coordinator.cli.interrupts import Interrupts
from coordinator.cli.leftovers import Leftovers
from coordinator.cli.options import Terms, shaped
from coordinator.cli.private import Agent
from coordinator.cli.result import JobResult, gather, print_results, verdict_of
from coordinator.cli.screen import Screen
from coordinator.cli.watch import Watch
from coordinator.render import count_of

MAX_NODES: Final = 256
_PARTING: Final = "left at once: the daemons end the jobs and release the nodes by themselves"


@dataclass(frozen=True)
class Order:
    """What was asked for, once the file is known to be right."""

    compiled: language.Compiled
    agents: list[Agent]
    chosen: str | None
    keep: bool
    follow: bool
    as_document: bool


@click.command()
@click.argument("file", metavar="FILE")
@click.option(
    "--nodes", type=click.IntRange(1, MAX_NODES), metavar="N", help="Nodes a pool (default: the pool's `nodes`)."
)
@click.option("--param", "pairs", multiple=True, metavar="K=V", help="Give a param its value; may be repeated.")
@click.option("--params", "params_file", metavar="FILE", help="Values of params: JSON, or lines `name = value`.")
@click.option("--state", "chosen", metavar="DIR", help="Where all of it lives; must be empty or absent.")
@click.option("--keep", is_flag=True, help="Leave the state directory, and say where it is.")
@click.option("--follow", is_flag=True, help="Print tasks' output as it comes, each line with its task's name.")
@shaped
def run(
    terms: Terms,
    file: str,
    nodes: int | None,
    pairs: tuple[str, ...],
    params_file: str | None,
    chosen: str | None,
    keep: bool,
    follow: bool,
) -> int:
    """Run a file on this machine: a coordinator, agents, every job, the result; then all of it goes again."""
    source = sources.read_source(file)
    params = sources.params_of(pairs, params_file)
    compiled = language.compiled(source, params, pools_needed=True, as_document=terms.json)
    order = Order(compiled, agents_for(compiled.document, nodes), chosen, keep, follow, terms.json)
    with Interrupts(_PARTING) as interrupts, Leftovers():
        results, completed = _carry_out(order, interrupts)
    verdict = verdict_of(results).say()
    return verdict if completed else int(Exit.INTERRUPTED)


def agents_for(document: dict[str, Any], nodes: int | None) -> list[Agent]:
    """The nodes that a file asks for, named after their pools."""
    wanted = [(pool, nodes or pool.get("nodes") or 1) for pool in document["pools"]]
    total = sum(count for _, count in wanted)
    if total > MAX_NODES:
        raise misused(f"{total:,} nodes are too many for one machine: at most {MAX_NODES}", "`--nodes N` starts fewer")
    return [
        Agent(pool["name"], f"{pool['name']}-{number}", pool.get("slots"))
        for pool, count in wanted
        for number in range(1, count + 1)
    ]


def _carry_out(order: Order, interrupts: Interrupts) -> tuple[list[JobResult], bool]:
    """The results, and whether the jobs ended by themselves. Whatever happens, no daemon stays."""
    with ExitStack() as undo:
        cluster = Cluster(private.create(order.chosen), order.agents)
        undo.callback(_put_away, cluster, order.keep)
        undo.callback(cluster.stop)
        cluster.state.plan(order.agents)
        screen = Screen(sys.stderr)
        screen.draw([f"starting a coordinator and {count_of(len(order.agents), 'node')} …"])
        output.drawing(screen.clear)
        undo.callback(screen.clear)
        cluster.start()

        def check() -> None:
            if interrupts.count:
                raise interrupted("interrupted before anything was submitted")

        with cluster.wait_ready(interrupts.fileno(), check) as connection:
            jobs = _submit(order, cluster, connection)
            if not screen.live:
                nodes = count_of(len(order.agents), "node")
                output.remark(f"started {nodes}, submitted {count_of(len(jobs), 'job')}")
            completed = _watch(order, jobs, cluster, connection, interrupts, screen)
            results = gather(connection, jobs, listed=order.as_document)
            connection.endure(None)
            try:
                print_results(results, as_document=order.as_document)
            finally:
                cluster.finish(connection)
    return results, completed


def _submit(order: Order, cluster: Cluster, connection: Connection) -> list[str]:
    cluster.used = True
    try:
        body = sending.send(connection, order.compiled, sending.fresh_submission(), as_document=order.as_document)
    except NoCoordinator:
        raise
    except Failure:  # refused: there are no jobs to wait for
        cluster.used = False
        raise
    return [job["id"] for job in body["jobs"]]


def _watch(
    order: Order,
    jobs: list[str],
    cluster: Cluster,
    connection: Connection,
    interrupts: Interrupts,
    screen: Screen,
) -> bool:
    with ExitStack() as undo:
        follower: Follower | None = None
        if order.follow:
            follower = undo.enter_context(
                Follower(
                    connect_to(cluster.socket), jobs, facts_on_stdout=not order.as_document, before_print=screen.clear
                )
            )
        watch = Watch(
            connection, jobs, interrupts, follower=follower, screen=screen, check=cluster.check, wakes=cluster.wakes
        )
        return watch.until_over()


def _put_away(cluster: Cluster, keep: bool) -> None:
    state = cluster.state
    if not cluster.gone:
        state.release()
        output.warn(f"not all of it ended; the daemons go on by themselves, the next run looks again: {state.path}")
    elif keep:
        state.forget()
        state.release()
        output.remark(f"kept: {state.path}")
    else:
        for what in state.remove():
            output.warn(f"left behind: {what}")
