"""The answer to `explain JOB|TASK`: the dominant reason, all the others, node by node, and what would help."""

from __future__ import annotations

from typing import Any, Final

from coordinator import access, why, why_job
from coordinator.desk import Desk
from coordinator.finding import find_job, find_task
from coordinator.model import Group, Job
from coordinator.reasons import NEXT, Cause, Code, Explanation
from coordinator.sessions import Session
from coordinator.views import time_text
from coordinator.why import View
from wire import messages as m

Plain = dict[str, Any]

MAX_SENTENCE: Final = 600
"""Characters of one sentence of an answer: some quote what nodes and operators said."""


def answer(desk: Desk, session: Session, message: m.Explain) -> None:
    """Explain what the request names. Raises RefusedError for what there is not."""
    view = _view(desk, session)
    if "/" in message.target:
        job, group, index = find_task(desk, session, message.target)
        found = why.task(view, job, group, index)
    else:
        job = find_job(desk, session, message.target)
        found = why_job.job(view, job)
    desk.reply(session.epoch, message.request, plain(found, job))


def reason(desk: Desk, session: Session, job: Job, group: Group, index: int) -> str:
    """The dominant reason of one task alone."""
    return _clipped(why.task(_view(desk, session), job, group, index).causes[0].reason)


def _view(desk: Desk, session: Session) -> View:
    return View(desk, lambda other: access.may_look(desk, session, other))


def plain(found: Explanation, job: Job) -> Plain:
    """As `explain -o json` prints it."""
    first = found.causes[0]
    return {
        "id": found.target,
        "reason": _clipped(first.reason),
        "code": first.code.value,
        "all": [_cause(cause) for cause in found.causes],
        "next": _next(found, job),
        "nodes": [
            {
                "node": line.node,
                "state": line.state,
                "code": line.code and line.code.value,
                "reason": _clipped(line.reason),
            }
            for line in found.nodes
        ],
        "nodes_left_out": found.left_out,
        "story": [{"time": time_text(told.at), "text": _clipped(told.text)} for told in found.story],
    }


def _cause(cause: Cause) -> Plain:
    return {"code": cause.code.value, "reason": _clipped(cause.reason), "node": cause.node}


def _next(found: Explanation, job: Job) -> str | None:
    """What would help against the dominant reason."""
    first = found.causes[0]
    if first.code is Code.SKIPPED and first.about is None:
        return None  # no task is to blame, and what is explained already need not be again
    text = NEXT.get(first.code)
    about = first.about or found.target
    return text and text.format(about=about, job=job.id, pool=job.spec.pool, node=first.node)


def _clipped(text: str) -> str:
    return text if len(text) <= MAX_SENTENCE else text[: MAX_SENTENCE - 1] + "…"
