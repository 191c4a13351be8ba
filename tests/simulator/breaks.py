"""The breaks that the simulator must notice: one line of a core each, and the promise that goes with it."""

from __future__ import annotations

from typing import Final

from tests.simulator.mutations import Mutation

BREAKS: Final = (
    # ---- the keeper
    Mutation(
        "a task's leftovers are taken for gone",
        "agentd",
        "if event.alone or (self._item.template.leave_running and event.exit_code == 0):",
        "if True:",
    ),
    Mutation(
        "a task lives on after its lease",
        "agentd",
        'self._stop("killed", reason, min(LEASE_GRACE_S, self._item.template.stop_grace_s), boottime)',
        "pass",
    ),
    Mutation(
        "timeouts are not enforced",
        "agentd",
        "if boottime >= self._timeout_at and self._item is not None:",
        "if False:",
    ),
    Mutation(
        "the grace never ends",
        "agentd",
        "if boottime >= self._kill_at:",
        "if False:",
    ),
    Mutation(
        "a start is not written down",
        "agentd",
        "self._record(_start_line(item.key))",
        "self._anything = True",
    ),
    Mutation(
        "an end is not kept until it is acked",
        "agentd",
        "self._unacked.append((self._seq, item.key, text))",
        "pass",
    ),
    Mutation(
        "an exit code is swallowed",
        "agentd",
        """f'"exit_code":{_number(how.exit_code)},"signal":{_number(how.signal)},'""",
        """f'"exit_code":0,"signal":null,'""",
    ),
    # ---- the agent
    Mutation(
        "an end closes nothing",
        "agentd",
        "grant.close(position)",
        "pass",
    ),
    Mutation(
        "a keeper of an earlier life is not looked for",
        "agentd",
        "self._desk.ready.keepers.append(SurveyKeeper(name, row.job, row.purpose, *terms))",
        "self._desk.ready.keepers.append(StartKeeper(name, row.job, row.purpose))",
    ),
    Mutation(
        "tasks do not wait for the preparation",
        "agentd",
        "return preparation is not None and preparation.wait",
        "return False",
    ),
    Mutation(
        "a reboot leaves what was prepared prepared",
        "agentd",
        "if self.state is RoundState.PREPARED and rerun:",
        "if False:",
    ),
    Mutation(
        "a reboot prepares again where that is not wanted",
        "agentd",
        "if self.state is RoundState.PREPARED and rerun:",
        "if self.state is RoundState.PREPARED:",
    ),
    Mutation(
        "a release's failures are not counted",
        "agentd",
        "return Verdict.RETRY if retries is None or book.failures < retries else Verdict.FAILED",
        "return Verdict.FAILED",
    ),
    Mutation(
        "a failure passes for a success",
        "agentd",
        "if how.outcome is Outcome.EXITED and how.exit_code == 0:",
        "if how.outcome is Outcome.EXITED:",
    ),
    Mutation(
        "what a dead keeper had started is taken for unstarted",
        "agentd",
        "for key in started:",
        "for key in ():",
    ),
    Mutation(
        "grants of an earlier boot are taken for unstarted",
        "agentd",
        "if held is None or held.stale:",
        "if held is None:",
    ),
    Mutation(
        "the lease is renewed by the answer and not by the question",
        "agentd",
        "self.until = sent + self._lease_s",
        "self.until = sent + 3 * self._lease_s + 30",
    ),
    Mutation(
        "reports are forgotten before they are acked",
        "agentd",
        "for number in sorted(self.ledger.outbox):",
        "for number in ():",
    ),
    # ---- the coordinator
    Mutation(
        "a lost attempt's number is used again",
        "coordinator",
        "self._again(job, group, index, grant.attempt + started, None)",
        "self._again(job, group, index, grant.attempt, None)",
    ),
    Mutation(
        "a submission is taken twice",
        "coordinator",
        "known = desk.cluster.submissions.get((session.owner, message.submission))",
        "known = None",
    ),
    Mutation(
        "what a node no longer holds is not given up",
        "coordinator",
        "work.return_all(desk, grant, Returned.GONE, keep_mask=holding.grants.get(grant.id, 0))",
        "pass",
    ),
    Mutation(
        "a deletion is not written down",
        "coordinator",
        "self.jobs.pop(record.job, None)",
        "pass",
    ),
    Mutation(
        "a node that is out of contact does not hold a job's end",
        "coordinator",
        "elif job.forced or _grace_is_over(desk, job, node):",
        "elif False:",
    ),
    Mutation(
        "the lease has no margin",
        "coordinator",
        "return node.heard_at + lease * (1 + LEASE_DRIFT) + LEASE_MARGIN_S if node.missing else missed",
        "return node.heard_at + lease / 2 if node.missing else missed",
    ),
    Mutation(
        "one retry too many",
        "coordinator",
        "may_retry = retries is None or group.failures.get(index, 0) < retries",
        "may_retry = retries is None or group.failures.get(index, 0) <= retries",
    ),
    Mutation(
        "a job completes with releases owed",
        "coordinator",
        "if job.settled and job.tasks_over:",
        "if job.tasks_over:",
    ),
    Mutation(
        "a late end counts",
        "coordinator",
        "if report.number > node.reported:",
        "if report.number > node.reported and report.number % 3:",
    ),
    Mutation(
        "tasks run before what they wait for",
        "coordinator",
        "return all(self.groups[number].all_succeeded for number in group.spec.after)",
        "return True",
    ),
)
