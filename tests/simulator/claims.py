"""What tasks need of machines, judged from what lives there: never more than there is, no GPU twice, no other label."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from agentd.model import NodeConfig
from coordinator.records import NodeJobState
from tests.simulator.invariants import require
from tests.simulator.processes import Identity
from tests.simulator.truth import Truth
from wire.messages import Join
from wire.spec import GroupSpec, Needs

HOLDING: Final = frozenset(
    {
        NodeJobState.ABSENT, NodeJobState.PREPARING, NodeJobState.PREPARED, NodeJobState.BARRED,
        NodeJobState.RELEASING,
    }
)  # fmt: skip
"""A round in one of these has its directories."""


def needed(needs: Needs) -> dict[str, float]:
    """Amounts by resource."""
    named = {"cpus": needs.cpus, "memory": needs.memory_bytes, "disk": needs.disk_bytes, "gpus": needs.gpus}
    return {name: float(amount) for name, amount in {**named, **needs.others}.items() if amount}


def has_labels(node: NodeConfig | Join, needs: Needs) -> bool:
    """Whether a node is what is asked for."""
    worn = {*node.labels, *(f"{name}={value}" for name, value in node.labels.items())}
    return worn.issuperset(needs.labels)


def fits(group: GroupSpec, dirs: int, node: NodeConfig | Join) -> bool:
    """Whether the node has all that a first task of a job with so many bytes of directories needs."""
    wanted = needed(group.needs)
    wanted["disk"] = wanted.get("disk", 0.0) + dirs
    return all(amount <= node.resources.get(name, 0.0) for name, amount in wanted.items()) and has_labels(
        node, group.needs
    )


class Claims:
    """The judge of one world."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth
        self.using: dict[tuple[str, str, str | None, int | None], set[str]] = {}
        """GPUs by who sees them: host, job, task and attempt."""

    def starts(self, host: str, node: NodeConfig, who: Identity) -> None:
        """What the live tasks of a machine need, the new one included, is no more than what it offers."""
        assert who.task is not None
        needs = self._needs(who)
        require(has_labels(node, needs), "claims", f"{who.task} starts where no {needs.labels} is", who.job)
        claimed = self._claimed(host, node.node)
        for name, amount in needed(needs).items():
            total = claimed[name] + amount
            enough = total <= node.resources.get(name, 0.0) + 1e-9
            require(enough, "claims", f"{total} of {name} are claimed on {host} with {who.task}", who.job)

    def sees(self, host: str, declared: tuple[str, ...], who: Identity, text: str | None) -> None:
        """A command sees as many GPUs as it asked for, of those that its node has and nobody else is using."""
        count = 0 if who.task is None else self._needs(who).gpus or 0
        seen = text.split(",") if text else []
        right = len(seen) == len(set(seen)) == count and set(seen) <= set(declared)
        right = right and (text is not None) == bool(declared)
        require(right, "GPUs", f"{who.task or who.kind.value} asked for {count} GPUs and sees {text!r}", who.job)
        alive = {(tree.who.job, tree.who.task, tree.who.attempt) for tree in self.truth.live[host]}
        self.using = {at: held for at, held in self.using.items() if at[0] != host or at[1:] in alive}
        for at, held in self.using.items():
            both = set(seen) & held if at[0] == host else set()
            require(not both, "GPUs", f"{who.task} sees {both} of {at}", who.job)
        if seen:
            self.using[host, who.job, who.task, who.attempt] = set(seen)

    def _needs(self, who: Identity) -> Needs:
        job = self.truth.jobs[who.job]
        return job.group(job.task(who.task or "")[0]).needs

    def _claimed(self, host: str, node: str) -> dict[str, float]:
        """What the live tasks on a machine need, and the directories of jobs whose round there is open."""
        total: dict[str, float] = defaultdict(float)
        for tree in self.truth.live[host]:
            for name, amount in needed(self._needs(tree.who)).items() if tree.who.task is not None else ():
                total[name] += amount
        for (name, where), rounds in self.truth.rounds.items():
            held = where == node and rounds and not rounds[-1].voided and rounds[-1].state in HOLDING
            if held and self.truth.jobs[name].deleted_at is None:
                total["disk"] += sum(spec.size_bytes or 0 for spec in self.truth.jobs[name].spec.dirs)
        return total
