"""The breaks that the simulator must notice: one line of a core each, and the promise that goes with it."""

from __future__ import annotations

from typing import Final

from tests.simulator.mutations import Mutation

KEEPER: Final = "agentd.keeper"
BREAKS: Final = (
    # ---- the keeper
    Mutation(
        "a task's leftovers are taken for gone",
        KEEPER,
        "KeeperCore._exited",
        "if event.alone or (self._item.template.leave_running and event.exit_code == 0):",
        "if True:",
    ),
    Mutation(
        "a task lives on after its lease",
        KEEPER,
        "KeeperCore._lease_ended",
        'self._stop("killed", reason, min(LEASE_GRACE_S, self._item.template.stop_grace_s), boottime)',
        "pass",
    ),
    Mutation(
        "a queued task starts after the lease",
        KEEPER,
        "KeeperCore._advance",
        "if item.template.leased and boottime >= self._lease:",
        "if False:",
    ),
    Mutation(
        "timeouts are not enforced",
        KEEPER,
        "KeeperCore._tick",
        "if boottime >= self._timeout_at and self._item is not None:",
        "if False:",
    ),
    Mutation(
        "the grace never ends",
        KEEPER,
        "KeeperCore._tick",
        "if boottime >= self._kill_at:",
        "if False:",
    ),
    Mutation(
        "an exit code is swallowed",
        KEEPER,
        "KeeperCore._end",
        '"exit_code": result and result.exit_code,',
        '"exit_code": 0,',
    ),
    Mutation(
        "a start is not written down",
        KEEPER,
        "KeeperCore._start",
        "self._record(_start_line(item.key))",
        "self._anything = True",
    ),
    Mutation(
        "an end is not kept until it is acked",
        KEEPER,
        "KeeperCore._end",
        "self._unacked.append((self._seq, item.key, text))",
        "pass",
    ),
    # ---- the agent
    Mutation(
        "tasks do not wait for the preparation",
        "agentd.core",
        "AgentCore._waits",
        "return preparation is not None and preparation.wait",
        "return False",
    ),
    Mutation(
        "a second preparation starts beside the first",
        "agentd.phases",
        "Phases._due",
        "if book.live is not None or book.over:",
        "if book.over:",
    ),
    Mutation(
        "a release does not wait until the job is empty",
        "agentd.phases",
        "Phases._advance_release",
        "if self._stop_others(job, held) or course.reading is not None:",
        "if course.reading is not None:",
    ),
    Mutation(
        "a release's failures are not counted",
        "agentd.phases",
        "Phases._judge",
        "return Verdict.RETRY if retries is None or book.failures < retries else Verdict.FAILED",
        "return Verdict.FAILED",
    ),
    Mutation(
        "a failure passes for a success",
        "agentd.phases",
        "Phases._judge",
        "if how.outcome is Outcome.EXITED and how.exit_code == 0:",
        "if how.outcome is Outcome.EXITED:",
    ),
    Mutation(
        "what a dead keeper had started is taken for unstarted",
        "agentd.dispatch",
        "Dispatch.keeper_dead",
        "for key in started:",
        "for key in ():",
    ),
    Mutation(
        "grants of an earlier boot are taken for unstarted",
        "agentd.dispatch",
        "Dispatch.surveyed",
        "if held is None or held.stale:",
        "if held is None:",
    ),
    Mutation(
        "a dropped grant runs on",
        "agentd.dispatch",
        "Dispatch.drop",
        "if grant in void:",
        "if False:",
    ),
    Mutation(
        "the lease is renewed by the answer and not by the question",
        "agentd.lease",
        "Lease.acked",
        "self.until = sent + self._lease_s",
        "self.until = sent + 3 * self._lease_s + 30",
    ),
    Mutation(
        "reports are forgotten before they are acked",
        "agentd.core",
        "AgentCore._joined",
        "for number in sorted(self.ledger.outbox):",
        "for number in ():",
    ),
    # ---- the coordinator
    Mutation(
        "the lease has no margin",
        "coordinator.core",
        "Core._lease_next",
        "return node.heard_at + lease * (1 + LEASE_DRIFT) + LEASE_MARGIN_S if node.missing else missed",
        "return node.heard_at + lease / 2 if node.missing else missed",
    ),
    Mutation(
        "a lost attempt's number is used again",
        "coordinator.cluster",
        "Cluster._returned",
        "self._again(job, group, grant.index(position), grant.attempt + started, None)",
        "self._again(job, group, grant.index(position), grant.attempt, None)",
    ),
    Mutation(
        "one retry too many",
        "coordinator.retry",
        "_verdict",
        "may_retry = retries is None or group.failures.get(index, 0) < retries",
        "may_retry = retries is None or group.failures.get(index, 0) <= retries",
    ),
    Mutation(
        "a job completes with releases owed",
        "coordinator.ending",
        "_terminate",
        "if job.settled and job.tasks_over:",
        "if job.tasks_over:",
    ),
    Mutation(
        "a submission is taken twice",
        "coordinator.submission",
        "submit",
        "known = core.cluster.submissions.get(message.submission)",
        "known = None",
    ),
    Mutation(
        "what a node no longer holds is not given up",
        "coordinator.joining",
        "_reconcile",
        "work.return_all(core, grant, Returned.GONE, keep_mask=holding.grants.get(grant.id, 0))",
        "pass",
    ),
    Mutation(
        "a late end counts",
        "coordinator.work",
        "take_report",
        "if report.number > node.reported:",
        "if report.number > node.reported and report.number % 3:",
    ),
    Mutation(
        "a grant leaves before it is stored",
        "coordinator.core",
        "Core.forget",
        "self._ready.forget.append(scope)",
        "self._ready.forget.append(CLUSTER_SCOPE)",
    ),
    Mutation(
        "tasks run before what they wait for",
        "coordinator.model",
        "Job.conditions_hold",
        "return all(self.groups[number].all_succeeded for number in group.spec.after)",
        "return True",
    ),
    Mutation(
        "a release is owed until it succeeded once, and again",
        "coordinator.joining",
        "_reconcile_round",
        "_never_held(core, job, node_job)",
        "ending.release(core, job, node_job, node)",
    ),
)
