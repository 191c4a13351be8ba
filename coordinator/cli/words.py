"""What jobs, tasks, nodes and pools look like in tables. Pure: the plain documents of the protocol in, rows out."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

from coordinator.render import Column, age, count_of, duration, pairs, plain, plain_lines, size, span
from wire import signals

Document = Mapping[str, Any]

JOB_COLUMNS: Final = (
    Column("JOB"),
    Column("STATE"),
    Column("RESULT"),
    Column("DONE", right=True),
    Column("RUNNING", right=True),
    Column("FAILED", right=True),
    Column("AGE", right=True),
    Column("REASON", flexible=True),
)
JOB_NODE_COLUMNS: Final = (
    Column("NODE"),
    Column("ROUND", right=True),
    Column("STATE"),
    Column("TASKS", right=True),
    Column("PREP"),
    Column("RELEASE"),
    Column("REASON", flexible=True),
)
TASK_COLUMNS: Final = (
    Column("TASK"),
    Column("STATE"),
    Column("ENDED"),
    Column("TRIES", right=True),
    Column("NODE"),
    Column("TIME", right=True),
    Column("REASON", flexible=True),
)
NODE_COLUMNS: Final = (
    Column("NODE"),
    Column("POOL"),
    Column("STATE"),
    Column("SLOTS", right=True),
    Column("SEEN", right=True),
    Column("OWES", flexible=True),
    Column("REASON", flexible=True),
)
POOL_COLUMNS: Final = (
    Column("POOL"),
    Column("NODES", right=True),
    Column("SLOTS", right=True),
    Column("PLACEMENT"),
    Column("SHARING"),
    Column("LOST AFTER", right=True),
)
TOKEN_COLUMNS: Final = (
    Column("TOKEN"),
    Column("ROLE"),
    Column("NAME"),
    Column("POOL"),
    Column("USED", right=True),
    Column("STATE"),
    Column("EXPIRES"),
    Column("CREATED BY", flexible=True),
)
IDENTITY_COLUMNS: Final = (
    Column("NAME"),
    Column("ROLE"),
    Column("STATE"),
    Column("SINCE"),
    Column("EXPIRES"),
    Column("KEY", flexible=True),
)
FILE_COLUMNS: Final = (Column("NAME"), Column("SIZE", right=True), Column("CHANGED", right=True))

_OVER: Final = ("succeeded", "failed", "cancelled", "skipped")


def tasks_over(job: Document) -> int:
    return sum(int(job["tasks"].get(name, 0)) for name in _OVER)


def is_over(job: Document) -> bool:
    return job.get("state") == "completed"


def job_row(job: Document, now: float) -> list[object]:
    tasks = job["tasks"]
    return [
        job["id"],
        job["state"],
        job.get("result"),
        f"{tasks_over(job)}/{tasks['total']}",
        tasks["running"],
        tasks["failed"],
        age(job.get("submitted_at"), now),
        reason_of_end(job),
    ]


def reason_of_end(job: Document) -> str | None:
    """The end reason, unless it is the one everybody expects."""
    reason = job.get("end_reason")
    return None if reason == "AllTasksComplete" else reason


def tally(counts: Document, names: Sequence[str]) -> str:
    """`8 succeeded, 1 failed`: those that are not zero."""
    return ", ".join(f"{counts[name]:,} {name}" for name in names if counts.get(name))


def job_lines(job: Document, now: float, colour: bool) -> list[str]:
    tasks, release = job["tasks"], job.get("release", {})
    in_tasks = tally(tasks, ("active", "preparing", "running", *_OVER))
    return pairs(
        [
            ("Job", job["id"]),
            ("Pool", job.get("pool")),
            ("Owner", job.get("owner")),
            ("State", job["state"]),
            ("Result", job.get("result")),
            ("End reason", job.get("end_reason")),
            ("Waits", job.get("waits")),
            ("Priority", job.get("priority")),
            ("Parallel", job.get("parallel")),
            ("Timeout", duration(job["timeout_s"]) if job.get("timeout_s") else None),
            ("Submitted", _moment(job.get("submitted_at"), now)),
            ("Started", _moment(job.get("started_at"), now)),
            ("Tasks done", _moment(job.get("tasks_done_at"), now)),
            ("Completed", _moment(job.get("completed_at"), now)),
            ("On end", _call_word(job.get("on_end"))),
            ("Tasks", f"{tasks['total']:,}" + (f" ({in_tasks})" if in_tasks else "")),
            ("Release", tally(release, ("owed", "succeeded", "failed", "unreached", "waived"))),
        ],
        colour=colour,
    )


def job_settings(job: Document) -> str:
    """What may be changed of a job, in one line."""
    parallel, timeout_s = job.get("parallel"), job.get("timeout_s")
    limits = f"parallel {parallel or 'none'}, timeout {duration(timeout_s) if timeout_s else 'none'}"
    return f"{job['id']}: priority {job['priority']}, {limits}"


def _moment(text: object, now: float) -> str | None:
    return f"{text} ({age(text, now)} ago)" if isinstance(text, str) else None


def ending(exit_code: object, signal_number: object) -> str | None:
    """`exit 3`, `SIGKILL`, or None when there was no end that the kernel tells."""
    if isinstance(signal_number, int):
        return signals.told(signal_number)
    return f"exit {exit_code}" if isinstance(exit_code, int) else None


def phase_word(phase: Document | None) -> str | None:
    """`succeeded`, `failed (exit 3)`, `running (try 2)`."""
    if phase is None:
        return None
    remarks = []
    if phase["state"] in ("failed", "interrupted"):
        remarks.append(ending(phase.get("exit_code"), phase.get("signal")))
    if (phase.get("attempts") or 0) > 1:
        remarks.append(f"try {phase['attempts']}")
    known = [r for r in remarks if r]
    return str(phase["state"]) + (f" ({', '.join(known)})" if known else "")


def phase_reason(row: Document) -> str | None:
    """Why a preparation or a release did not succeed."""
    for name in ("prep", "release"):
        phase = row.get(name)
        if phase is not None and phase["state"] not in ("succeeded", "running") and phase.get("reason"):
            return str(phase["reason"])
    return None


def job_node_row(row: Document) -> list[object]:
    return [
        row["node"],
        row["round"],
        row["state"],
        row.get("tasks_started"),
        phase_word(row.get("prep")),
        phase_word(row.get("release")),
        "; ".join(filter(None, (phase_reason(row), what_is_left(row)))),
    ]


def what_is_left(row: Document) -> str | None:
    """What the clean-up of a job could not remove from a node; None when nothing is left, or nobody knows."""
    clean = row.get("clean") or {}
    parts = [
        count_of(clean["processes"], "process", "processes") if clean.get("processes") else "",
        count_of(len(clean["files"]), "file") if clean.get("files") else "",
        f"user {clean['uid']}" if clean.get("uid") is not None else "",
        count_of(len(clean["cgroups"]), "control group") if clean.get("cgroups") else "",
        count_of(len(clean["mounts"]), "mount") if clean.get("mounts") else "",
    ]
    left = ", ".join(part for part in parts if part)
    return f"left there: {left}" if left else None


def _call_word(call: Document | None) -> str | None:
    """`failed, exit 3, 3 attempts: no route to host` of what `on_end` names."""
    if call is None:
        return None
    how = ending(call.get("exit_code"), call.get("signal")) if call.get("exit_code") != 0 else None
    tries = count_of(call["attempts"], "attempt") if call["attempts"] > 1 else None
    said = str(call.get("output") or "").strip().rpartition("\n")[2]
    head = ", ".join(str(part) for part in (call["state"], how, call.get("reason"), tries) if part)
    return f"{head}: {said}" if said else head


def state_word(task: Document) -> str:
    """A task's result once it has one, its state before."""
    return str(task.get("result") or task["state"]) if task["state"] == "completed" else str(task["state"])


def short_name(task: Document) -> str:
    """`price[17,fx]` of `daily-3/price[17,fx]`."""
    return str(task["id"]).removeprefix(f"{task['job']}/")


def task_row(task: Document, now: float) -> list[object]:
    return [
        short_name(task),
        state_word(task),
        ending(task.get("exit_code"), task.get("signal")),
        task.get("attempts"),
        task.get("node"),
        span(task.get("started_at"), task.get("ended_at"), now) if task["state"] != "active" else None,
        task.get("reason"),
    ]


def task_lines(task: Document, now: float, colour: bool) -> list[str]:
    usage = task.get("usage") or {}
    lines = pairs(
        [
            ("Task", task["id"]),
            ("State", state_word(task)),
            ("Ended", ending(task.get("exit_code"), task.get("signal"))),
            ("Reason", task.get("reason")),
            ("Node", task.get("node")),
            ("Attempts", task.get("attempts")),
            ("Params", ", ".join(f"{k} = {v}" for k, v in (task.get("params") or {}).items())),
            ("Created", _moment(task.get("created_at"), now)),
            ("Started", _moment(task.get("started_at"), now)),
            ("Took", span(task.get("started_at"), task.get("ended_at"), now) if task.get("started_at") else None),
            ("CPU", duration(usage["cpu_s"]) if usage.get("cpu_s") is not None else None),
            ("Memory", size(usage["max_rss_bytes"]) if usage.get("max_rss_bytes") else None),
        ],
        colour=colour,
    )
    history = task.get("history") or []
    if len(history) > 1:
        lines += ["", "Attempts:"]
        lines += [f"  {n}. {_attempt_words(entry)}" for n, entry in enumerate(history, 1)]
    return lines


def _attempt_words(entry: Document) -> str:
    parts = [
        str(entry.get("outcome") or entry.get("state") or entry.get("result") or ""),
        ending(entry.get("exit_code"), entry.get("signal")) or "",
        f"on {entry['node']}" if entry.get("node") else "",
        str(entry.get("reason") or ""),
    ]
    return ", ".join(part for part in parts if part)


def node_row(node: Document) -> list[object]:
    seen = node.get("last_seen_s")
    return [
        node["id"],
        node["pool"],
        node["state"],
        f"{node.get('slots_used', 0)}/{node['slots']}",
        duration(seen) if isinstance(seen, (int, float)) else None,
        ", ".join(node.get("owes") or []),
        node.get("reason"),
    ]


def node_lines(node: Document, colour: bool) -> list[str]:
    seen = node.get("last_seen_s")
    return pairs(
        [
            ("Node", node["id"]),
            ("Pool", node["pool"]),
            ("State", node["state"]),
            ("Reason", node.get("reason")),
            *_drain_words(node.get("drain")),
            ("Slots", f"{node.get('slots_used', 0)} of {node['slots']} in use"),
            ("Resources", ", ".join(_resource(n, r) for n, r in (node.get("resources") or {}).items())),
            ("Labels", ", ".join(f"{k}={v}" if v else k for k, v in (node.get("labels") or {}).items())),
            ("Start", phase_word(node.get("start"))),
            ("Owes release of", ", ".join(node.get("owes") or [])),
            ("Quarantined", ", ".join(f"user {q['uid']} of {q['job']}" for q in node.get("quarantined") or [])),
            ("Last seen", f"{duration(seen)} ago" if isinstance(seen, (int, float)) else None),
            ("Elevation", "allowed" if node.get("elevation") else "forbidden"),
            ("Containment", node.get("containment")),
            ("Limits", ", ".join(node.get("limits") or []) or None),
            ("Users", node.get("users")),
            ("Version", node.get("version")),
            ("Boot", node.get("boot")),
        ],
        colour=colour,
    )


def _drain_words(drain: Document | None) -> list[tuple[str, object]]:
    if drain is None:
        return []
    return [("Drained since", drain["since"]), ("Tasks stop at", None if drain["drained_at"] else drain["deadline"])]


def _resource(name: str, figure: object) -> str:
    if not isinstance(figure, Mapping):
        return f"{name} {figure}"
    used, total = figure.get("used", 0), figure.get("total", 0)
    return f"{name} {size(used)} of {size(total)}" if name in ("memory", "disk") else f"{name} {used:g} of {total:g}"


def pool_row(pool: Document) -> list[object]:
    wanted = pool.get("nodes_wanted")
    return [
        pool["id"],
        f"{pool['nodes']}/{wanted}" if wanted is not None else pool["nodes"],
        f"{pool.get('slots_used', 0)}/{pool['slots']}",
        pool.get("placement"),
        pool.get("sharing"),
        duration(pool["lost_after_s"]) if pool.get("lost_after_s") else None,
    ]


def pool_change(changed: Document) -> str:
    """`gpu: slots, lost_after changed; start removed`."""
    if changed["created"]:
        return f"{changed['id']}: created"
    what = [f"{', '.join(changed[how])} {how}" for how in ("changed", "removed") if changed.get(how)]
    return f"{changed['id']}: {'; '.join(what) or 'as it was'}"


def pool_lines(pool: Document, colour: bool) -> list[str]:
    wanted = pool.get("nodes_wanted")
    return pairs(
        [
            ("Pool", pool["id"]),
            ("Nodes", f"{pool['nodes']}" + (f" of {wanted}" if wanted is not None else "")),
            ("Slots", f"{pool.get('slots_used', 0)} of {pool['slots']} in use"),
            ("Slots a node", pool.get("slots_per_node")),
            ("Placement", pool.get("placement")),
            ("Sharing", pool.get("sharing")),
            ("Elevation", pool.get("elevation")),
            ("Lost after", duration(pool["lost_after_s"]) if pool.get("lost_after_s") else None),
            ("Start", _start_words(pool.get("start"))),
            ("Jobs", ", ".join(pool.get("jobs") or [])),
        ],
        colour=colour,
    ) + _start_lines(pool.get("start") or {})


def _start_words(start: Document | None) -> str | None:
    """How a pool's start is run."""
    if start is None:
        return None
    retries, backoff = start["retries"], start["backoff_s"]
    again = "unlimited retries" if retries is None else count_of(retries, "retry", "retries")
    parts = [
        "elevated" if start["elevated"] else None,
        f"{duration(start['timeout_s'])} for each attempt" if start["timeout_s"] is not None else None,
        again + (f" after {duration(backoff[0])}..{duration(backoff[1])}" if backoff else ""),
        f"stopped by {ending(None, start['stop_signal'])}, killed after {duration(start['stop_grace_s'])}",
    ]
    return ", ".join(part for part in parts if part is not None)


def _start_lines(start: Document) -> list[str]:
    """What it does, as far as whoever asks may know."""
    lines = [f"env {name}" for name in start.get("env") or []]
    lines += [f"file {path}" for path in start.get("files") or []]
    lines += [f"exit {arm}" for arm in start.get("exit") or []]
    lines += [f"run {shlex.join(start['run'])}"] if start.get("run") else []
    lines += ["script", *(f"  {line}" for line in plain_lines(start["script"]))] if start.get("script") else []
    return [f"  {plain(line)}".rstrip() for line in lines]


def file_row(entry: Document, now: float) -> list[object]:
    name = str(entry["name"])
    if entry.get("directory"):
        return [name + "/", None, age(entry.get("changed_at"), now)]
    return [name, size(entry["size"]), age(entry.get("changed_at"), now)]


def job_sentence(job: Document, now: float) -> str:
    """`daily-3: success, 8 tasks succeeded in 1.2s`, the one line that says how a job stands."""
    word = str(job.get("result") or "no result") if is_over(job) else str(job["state"])
    counts = tally(job["tasks"], _OVER if is_over(job) else ("active", "preparing", "running", *_OVER))
    reason = reason_of_end(job)
    text = f"{job['id']}: {word}, {count_of(job['tasks']['total'], 'task')}"
    text += f": {counts}" if counts else ""
    text += f" in {span(job.get('submitted_at'), job.get('completed_at'), now)}"
    return text + (f" ({reason})" if reason else "")


def token_row(token: Document) -> list[object]:
    return [
        token["id"],
        token["role"],
        token.get("name"),
        token.get("pool"),
        f"{token['used']}/{token['uses']}",
        token["state"],
        token.get("expires_at"),
        token.get("created_by"),
    ]


def identity_row(identity: Document) -> list[object]:
    return [
        identity["name"],
        identity["role"],
        identity["state"],
        identity.get("since"),
        identity.get("expires_at"),
        str(identity["key"])[:16],
    ]
