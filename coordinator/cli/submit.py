"""`coordinator submit FILE`: the jobs of a file on a live cluster, and with `--wait` their end."""

from __future__ import annotations

import click

from coordinator.cli import language, output, sending, sources
from coordinator.cli.connection import Connection
from coordinator.cli.failure import Exit
from coordinator.cli.options import Terms, facts

_PARTING = "left at once; the jobs were asked to end and go on without us"


@click.command()
@click.argument("file", metavar="FILE")
@click.option("--param", "pairs", multiple=True, metavar="K=V", help="Give a param its value; may be repeated.")
@click.option("--params", "params_file", metavar="FILE", help="Values of params: JSON, or lines `name = value`.")
@click.option("--wait", is_flag=True, help="Wait until all is over and print the result.")
@click.option("--once", is_flag=True, help="The same file with the same params is the same job, until it is deleted.")
@click.option("--update-pool", is_flag=True, help="Change live pools to what the file says of them (operators).")
@facts
def submit(
    terms: Terms,
    file: str,
    pairs: tuple[str, ...],
    params_file: str | None,
    wait: bool,
    once: bool,
    update_pool: bool,
) -> int | None:
    """Submit every job of a file, all or none."""
    source = sources.read_source(file)
    params = sources.params_of(pairs, params_file)
    compiled = language.compiled(source, params, pools_needed=False, as_document=terms.json)
    submission = f"once-{compiled.digest}" if once else sending.fresh_submission()
    with terms.connect() as connection:
        body = sending.send(
            connection, compiled, submission, as_document=terms.json, once=once, update_pool=update_pool
        )
        jobs = body["jobs"]
        if any(job.get("existing") for job in jobs):
            output.remark("it was submitted before")
        if not wait:
            terms.show(body, lambda: [job["id"] for job in jobs])
            return None
        return _until_over(terms, connection, [job["id"] for job in jobs])


def _until_over(terms: Terms, connection: Connection, jobs: list[str]) -> int:
    # Who does not wait needs nothing that shows and tells.
    from coordinator.cli.interrupts import Interrupts
    from coordinator.cli.result import gather, print_results, verdict_of
    from coordinator.cli.watch import Watch

    for job in jobs:
        output.remark(f"submitted {job}")
    with Interrupts(_PARTING) as interrupts:
        completed = Watch(connection, jobs, interrupts).until_over()
    results = gather(connection, jobs, listed=terms.json)
    print_results(results, as_document=terms.json)
    verdict = verdict_of(results).say()
    return verdict if completed else int(Exit.INTERRUPTED)
