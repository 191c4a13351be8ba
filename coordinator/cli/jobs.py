"""`coordinator job …`: what jobs are there, how they stand, waiting for them, ending them."""

from __future__ import annotations

import sys
import time

import click

from coordinator.cli import output, words
from coordinator.cli.durations import Duration, OrNone
from coordinator.cli.failure import Exit, Failure, failed, interrupted, misused
from coordinator.cli.options import Family, Terms, facts
from coordinator.render import count_of, duration


@click.group(cls=Family)
def job() -> None:
    """Show, await, change and end jobs. JOB is an id (`daily-3`) or a name (its newest job)."""


@job.command("list")
@facts
def list_jobs(terms: Terms) -> None:
    """All jobs, oldest first."""
    with terms.connect() as connection:
        jobs = connection.rows("JobList")
    rows = [words.job_row(j, time.time()) for j in jobs]
    terms.show(jobs, lambda: output.table(words.JOB_COLUMNS, rows))


@job.command("show")
@click.argument("job_id", metavar="JOB")
@facts
def show_job(terms: Terms, job_id: str) -> None:
    """One job: its state, its tasks by state and the releases it still owes."""
    with terms.connect() as connection:
        document = connection.ask("JobShow", job=job_id)
    terms.show(document, lambda: words.job_lines(document, time.time(), output.in_colour(sys.stdout)))


@job.command("nodes")
@click.argument("job_id", metavar="JOB")
@facts
def list_job_nodes(terms: Terms, job_id: str) -> None:
    """Preparation and release of every node the job touched, nodes gone since included."""
    with terms.connect() as connection:
        rows = connection.rows("JobNodes", job=job_id)
    terms.show(rows, lambda: output.table(words.JOB_NODE_COLUMNS, [words.job_node_row(row) for row in rows]))


@job.command("wait")
@click.argument("job_id", metavar="JOB")
@click.option("--tasks", is_flag=True, help="Only until the tasks are done, not the release.")
@click.option("--timeout", type=Duration(), metavar="D", help="Give up after this long (10m, 1h30m) with status 124.")
@facts
def wait_for_job(terms: Terms, job_id: str, tasks: bool, timeout: float | None) -> int:
    """Wait until a job is over; the exit status is 0 only if all of it succeeded. An interrupt leaves the job alone."""
    from coordinator.cli.verdict import judge

    with terms.connect() as connection:
        job_id = connection.ask_patiently("JobShow", job=job_id)["id"]  # a name may mean a newer job after a while
        try:
            document = connection.ask_patiently("JobWait", timeout=timeout, job=job_id, tasks=tasks)
        except TimeoutError:
            raise Failure(
                Exit.TIMEOUT,
                "timeout",
                f"{job_id} was not over after {duration(timeout or 0)}",
                f"it goes on; `coordinator job show {job_id}` says how it stands",
            ) from None
        except KeyboardInterrupt:
            raise interrupted("interrupted; the job goes on", f"`coordinator job terminate {job_id}` ends it") from None
        if document["state"] == "deleted":
            raise Failure(Exit.UNKNOWN, "unknown", f"{document['id']} was deleted while it was waited for")
        nodes = [] if tasks else connection.rows("JobNodes", job=str(document["id"]))
    terms.show(document, lambda: [words.job_sentence(document, time.time())])
    return judge(document, nodes, tasks_only=tasks).say()


@job.command("terminate")
@click.argument("job_id", metavar="JOB")
@click.option("--reason", metavar="TEXT", default="UserTerminate", help="Kept as the job's end reason.")
@click.option("--force", is_flag=True, help="Complete without waiting for nodes out of contact.")
@facts
def terminate_job(terms: Terms, job_id: str, reason: str, force: bool) -> None:
    """End a job: what runs is stopped, what waits is cancelled, then every node that owes its release pays it."""
    with terms.connect() as connection:
        document = connection.ask("JobTerminate", job=job_id, reason=reason, force=force)
    terms.show(document, lambda: [f"{_id_of(document, job_id)} is {_state_of(document, 'terminating')}"])


@job.command("delete")
@click.argument("job_id", metavar="JOB")
@click.option("--yes", is_flag=True, help="Don't ask.")
@facts
def delete_job(terms: Terms, job_id: str, yes: bool) -> None:
    """Forget a job and remove its directories from the nodes; one that still runs is terminated first."""
    if not yes and sys.stdin.isatty() and sys.stderr.isatty() and not click.confirm(f"Delete {job_id}?", err=True):
        raise failed(f"{job_id} was not deleted")
    with terms.connect() as connection:
        document = connection.ask_patiently("JobDelete", job=job_id)
    terms.show(document, lambda: [f"{_id_of(document, job_id)} is deleted"])


@job.command("disable")
@click.argument("job_id", metavar="JOB")
@click.option("--requeue", "ways", flag_value="requeue", multiple=True, help="Stop what runs; it runs again later.")
@click.option("--terminate", "ways", flag_value="terminate", multiple=True, help="Stop what runs; it has failed.")
@click.option("--wait", "ways", flag_value="wait", multiple=True, help="Let what runs end by itself.")
@facts
def disable_job(terms: Terms, job_id: str, ways: tuple[str, ...]) -> None:
    """Start nothing of a job any more until it is enabled; says `disabling` while something of it still runs."""
    if len(set(ways)) != 1:
        raise misused(
            "say what becomes of the tasks that run: --requeue, --terminate or --wait",
            "--requeue stops them and runs them again later, --terminate makes them failures, --wait lets them end",
        )
    with terms.connect() as connection:
        document = connection.ask("JobDisable", job=job_id, how=ways[0])
    terms.show(document, lambda: [f"{_id_of(document, job_id)} is {_state_of(document, 'disabling')}"])


@job.command("enable")
@click.argument("job_id", metavar="JOB")
@facts
def enable_job(terms: Terms, job_id: str) -> None:
    """Let a disabled job go on."""
    with terms.connect() as connection:
        document = connection.ask("JobEnable", job=job_id)
    terms.show(document, lambda: [f"{_id_of(document, job_id)} is {_state_of(document, 'active')}"])


@job.command("set")
@click.argument("job_id", metavar="JOB")
@click.option("--priority", type=int, metavar="N", help="-1000 to 1000; more than submitted is for operators.")
@click.option("--parallel", type=OrNone(click.IntRange(min=1)), metavar="N|none", help="So many tasks at once.")
@click.option("--timeout", type=OrNone(Duration()), metavar="D|none", help="Of the whole job, from its submission.")
@facts
def set_job(terms: Terms, job_id: str, priority: int | None, parallel: float | None, timeout: float | None) -> None:
    """Change a job that is not over. Lowering --parallel stops nothing that runs."""
    if priority is None and parallel is None and timeout is None:
        raise misused("nothing is to be changed", "give --priority, --parallel or --timeout")
    timeout_ms = None if timeout is None else max(round(timeout * 1000), 1 if timeout else 0)
    with terms.connect() as connection:
        document = connection.ask(
            "JobSet",
            job=job_id,
            priority=priority,
            parallel=None if parallel is None else int(parallel),
            timeout_ms=timeout_ms,
        )
    terms.show(document, lambda: [words.job_settings(document)])


@job.command("retry")
@click.argument("job_id", metavar="JOB")
@click.argument("tasks", metavar="[TASK]...", nargs=-1)
@click.option("--failed", "which", flag_value="failed", multiple=True, help="Only what failed.")
@click.option("--skipped", "which", flag_value="skipped", multiple=True, help="Only what was skipped.")
@click.option("--cancelled", "which", flag_value="cancelled", multiple=True, help="Only what was cancelled.")
@facts
def retry_job(terms: Terms, job_id: str, tasks: tuple[str, ...], which: tuple[str, ...]) -> None:
    """Reopen a completed job: all that did not succeed runs again, prepared and released once more; or only TASKs."""
    with terms.connect() as connection:
        document = connection.ask("JobRetry", job=job_id, which=sorted(set(which)), tasks=list(tasks))
    terms.show(
        document, lambda: [f"{_id_of(document, job_id)} is active again: {count_of(document['retried'], 'task')}"]
    )


def _id_of(document: object, otherwise: str) -> str:
    return str(document.get("id", otherwise)) if isinstance(document, dict) else otherwise


def _state_of(document: object, otherwise: str) -> str:
    return str(document.get("state", otherwise)) if isinstance(document, dict) else otherwise
