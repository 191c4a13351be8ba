"""A document is submitted: every job of it, or none and the reasons with their places in the file."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Final

from coordinator import access, ending, pools, readiness
from coordinator.desk import Desk
from coordinator.fitting import Problem, too_wide
from coordinator.pools import OPTIONS
from coordinator.records import JobSubmitted
from coordinator.sessions import Session
from wire import messages as m
from wire.near import near
from wire.spec import (
    Elevation,
    JobSpec,
    PoolSpec,
    SpecDocument,
)
from wire.validate import InvalidSpec, validate

MAX_JOBS: Final = 10_000
"""Jobs kept at once, ended ones included: `job delete` makes room."""
MAX_SOURCE: Final = 1_024
SUBMISSION_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}\Z")


def submit(desk: Desk, session: Session, message: m.Submit) -> None:
    """Answer a Submit: the ids of its jobs, new ones or those that this submission id gave before."""
    known = desk.cluster.submissions.get((session.owner, message.submission))
    if known is not None and message.once:
        known = [name for name in known if (job := desk.cluster.jobs.get(name)) and not job.deleting] or None
    if known is not None:
        existing = {"existing": True} if message.once else {}
        desk.reply(session.epoch, message.request, {"jobs": [{**_named(job), **existing} for job in known]})
        return
    refusal = _why_not_now(desk, message)
    if refusal is not None:
        desk.refuse(session.epoch, message.request, m.RefusalCode.REFUSED, refusal)
        return
    try:
        document = validate(message.document or {})
    except InvalidSpec as invalid:
        desk.refuse(
            session.epoch, message.request, m.RefusalCode.INVALID, f"the document does not hold: {invalid}",
            diagnostics=[_diagnostic(message, path, "B900", text) for path, text in invalid.problems],
        )  # fmt: skip
        return
    if (refusal := _may_not_declare(desk, session, document, message.update_pool)) is not None:
        desk.refuse(session.epoch, message.request, m.RefusalCode.REFUSED, refusal)
        return
    wrong = _problems(desk, document, message.update_pool)
    forbidden = _not_permitted(desk, session, document, message.update_pool)
    if problems := wrong + forbidden:
        code = m.RefusalCode.INVALID if wrong else m.RefusalCode.REFUSED
        desk.refuse(
            session.epoch, message.request, code, "; ".join(text for _, _, text in problems),
            diagnostics=[_diagnostic(message, *problem) for problem in problems],
        )  # fmt: skip
        return
    _accept(desk, session, message, document)


def _named(job: str) -> dict[str, str]:
    return {"id": job, "name": job.rpartition("-")[0]}


def _why_not_now(desk: Desk, message: m.Submit) -> str | None:
    if not SUBMISSION_ID.match(message.submission):
        return "a submission id is 1 to 128 letters, digits and `_.:-`"
    if (refusal := desk.why_nothing_new()) is not None:
        return refusal
    if len(desk.cluster.jobs) >= MAX_JOBS:
        return f"{MAX_JOBS} jobs are kept already: delete ended ones with `coordinator job delete`"
    return None


def _may_not_declare(desk: Desk, session: Session, document: SpecDocument, update: bool) -> str | None:
    """What a pool is like is no user's to say."""
    if session.role is not m.Role.USER:
        return None
    for claim in document.pools if update else ():
        if pools.changes(desk, claim, not document.jobs) and not access.may_operate(desk, session, claim.name):
            return f"pool `{claim.name}` is live, and only its operators may change it: ask one of them"
    new = [claim.name for claim in document.pools if not pools.is_declared(desk, claim.name)]
    if not new:
        return None
    return (
        f"pool `{new[0]}` has not been set up, and only an operator or admin may: "
        "ask one to submit the `pool` block, or name a pool of `coordinator pool list`"
    )


def _accept(desk: Desk, session: Session, message: m.Submit, document: SpecDocument) -> None:
    changed, whole = [], message.update_pool and not document.jobs
    for claim in document.pools:
        if message.update_pool or not pools.is_declared(desk, claim.name):
            changed.append(_changed(desk, claim, whole))
            pools.set_options(desk, claim, whole)
    jobs = []
    for spec in document.jobs:
        number = desk.cluster.bygone.next_number(spec.name)
        job_id = f"{spec.name}-{number}"
        desk.keep(JobSubmitted(job_id, number, message.submission, session.owner, spec, _source(message), desk.now))
        readiness.rebuild(desk.cluster.jobs[job_id])
        ending.rearm(desk, desk.cluster.jobs[job_id])
        jobs.append({"id": job_id, "name": spec.name})
    told = {"pools": changed} if message.update_pool else {}
    desk.reply(session.epoch, message.request, {"jobs": jobs, **told})


def _changed(desk: Desk, claim: PoolSpec, whole: bool) -> dict[str, Any]:
    """What will have become of the pool, as `pool apply` tells it."""
    live = desk.cluster.pools.get(claim.name)
    named = pools.changes(desk, claim, whole)
    removed = [option for option in named if option == "start" and claim.start is None]
    changed = [option for option in named if option not in removed]
    return {"id": claim.name, "created": live is None, "changed": changed, "removed": removed}


def _problems(desk: Desk, document: SpecDocument, update: bool) -> list[Problem]:
    found: list[Problem] = []
    declared = {claim.name: claim for claim in document.pools}
    for claim in document.pools if not update else ():
        found += _differs(desk, claim)
    for job in document.jobs:
        live = desk.cluster.pools.get(job.pool)
        if live is not None and update and job.pool in declared:
            live = replace(live, options=pools.options_after(desk, declared[job.pool]))
        if job.pool not in declared and live is None:
            close = near(job.pool, desk.cluster.pools)
            hint = f"; did you mean `{close[0]}`?" if close else "; `coordinator pool list` shows those there are"
            found.append((f"job/{job.name}/pool", "B110", f"there is no pool `{job.pool}`{hint}"))
            continue
        found += too_wide(job, declared.get(job.pool), live)
    return found


def _not_permitted(desk: Desk, session: Session, document: SpecDocument, update: bool) -> list[Problem]:
    """What the document asks for that its submitter has no right to."""
    found: list[Problem] = []
    declared = {claim.name: claim for claim in document.pools}
    for claim in document.pools if update else [new for new in document.pools if not pools.is_declared(desk, new.name)]:
        if claim.start is not None and claim.start.elevated and "start" in pools.changes(desk, claim):
            found += _start_not_permitted(desk, session, claim)
    for job in document.jobs:
        if job.pool not in declared and job.pool not in desk.cluster.pools:
            continue
        rules = f"`[pools.{job.pool}]` in the coordinator's configuration"
        if not desk.policy.may_submit(session.owner, session.role, job.pool):
            text = f"{session.owner} may not submit to pool `{job.pool}`: `users` of {rules} names who may"
            found.append((f"job/{job.name}/pool", "B801", text))
            continue
        block = declared.get(job.pool)
        options = desk.cluster.pools[job.pool].options if pools.is_declared(desk, job.pool) else block
        if update and block is not None:
            options = pools.options_after(desk, block)
        if job.on_end is not None and (why_not := _no_call(desk, session)) is not None:
            found.append((f"job/{job.name}/on_end/run", "B803", why_not))
        for path in _elevated(job):
            if options is None or options.elevation is not Elevation.ALLOWED:
                text = f"pool `{job.pool}` runs no elevated commands: it has `elevation = forbidden`"
                found.append((path, "B802", text))
            elif not desk.policy.may_elevate(session.owner, session.role, job.pool):
                text = f"{session.owner} may submit no elevated commands: `elevation` of {rules} names who may"
                found.append((path, "B802", text))
    return found


def _no_call(desk: Desk, session: Session) -> str | None:
    """Why nothing of this person's may be run on the coordinator's machine."""
    rules = desk.policy.end_calls
    if not rules.allowed:
        return (
            "this coordinator runs nothing when a job is over: `allowed = true` of `[on_end]` in its configuration "
            "would let it"
        )
    if rules.own_user and session.role is not m.Role.ADMIN:
        return (
            f"{session.owner} may not have the coordinator run `on_end`: it would run as the coordinator's own user, "
            "which is for admins; `user` of `[on_end]` in its configuration, and root, let it run as another"
        )
    return None


def _start_not_permitted(desk: Desk, session: Session, claim: PoolSpec) -> list[Problem]:
    """An elevated start is a right as that of any other elevated command."""
    path = f"pool/{claim.name}/start/elevated"
    if pools.options_after(desk, claim).elevation is not Elevation.ALLOWED:
        return [
            (path, "B802", f"the start of pool `{claim.name}` is elevated, and the pool has no `elevation = allowed`")
        ]
    if not desk.policy.may_elevate(session.owner, session.role, claim.name):
        rules = f"`[pools.{claim.name}]` in the coordinator's configuration"
        return [(path, "B802", f"{session.owner} may have no elevated start: `elevation` of {rules} names who may")]
    return []


def _elevated(job: JobSpec) -> list[str]:
    """The paths of all `elevated = true` of a job."""
    path = f"job/{job.name}"
    phases = [("prep", job.preparation), ("release", job.release)]
    found = [f"{path}/{name}/elevated" for name, phase in phases if phase is not None and phase.command.elevated]
    return found + [f"{path}/task/{group.name}/elevated" for group in job.groups if group.command.elevated]


def _differs(desk: Desk, claim: PoolSpec) -> list[Problem]:
    if not pools.is_declared(desk, claim.name):
        return []
    live = desk.cluster.pools[claim.name].options
    found = []
    for field, (option, default) in OPTIONS.items():
        wanted, named = getattr(claim, field), getattr(live, field)
        now = default if named is None else named
        if wanted is not None and wanted != now:
            text = f"pool `{claim.name}` is live with `{option} = {_spoken(field, now)}`, not {_spoken(field, wanted)}"
            found.append((f"pool/{claim.name}/{option}", "B604", text))
    if claim.start is not None and claim.start != live.start:
        found.append((f"pool/{claim.name}/start", "B604", _other_start(claim, live)))
    return found


def _other_start(claim: PoolSpec, live: PoolSpec) -> str:
    """Which option of the start differs first; what it runs is not told, it may be nobody's but the operators'."""
    if live.start is None:
        return f"pool `{claim.name}` is live without a `start`"
    options = ("argv", "script", "env", "lets", "timeout_ms", "retries", "backoff", "elevated", "arms", "files")
    differs = next((name for name in options if getattr(claim.start, name) != getattr(live.start, name)), "stop_signal")
    option = {"argv": "run", "timeout_ms": "timeout", "arms": "exit", "lets": "let", "files": "file"}.get(
        differs, differs
    )
    return f"pool `{claim.name}` is live with another `start`: its `{option}` differs"


def _spoken(field: str, value: Any) -> str:
    if field == "lost_after_ms":
        return f"{value // 1000}s" if value % 1000 == 0 else f"{value}ms"
    return str(getattr(value, "value", value))


def _source(message: m.Submit) -> str:
    """Where the document came from: kept with each of its jobs, and named in each diagnostic."""
    return message.source[:MAX_SOURCE]


def _diagnostic(message: m.Submit, path: str, code: str, text: str) -> dict[str, Any]:
    """As `check` prints it, at the nearest place the spans know."""
    span = None
    while path and span is None:
        span = message.spans.get(path)
        path = path.rpartition("/")[0]
    line, column, end_line, end_column = span if span is not None and len(span) == 4 else (1, 1, 1, 1)
    return {
        "code": code,
        "severity": "error",
        "message": text,
        "span": {
            "file": _source(message),
            "start": {"line": line, "column": column},
            "end": {"line": end_line, "column": end_column},
        },
        "related": [],
        "help": None,
        "edit": None,
    }
