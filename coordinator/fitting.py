"""What no node of a pool could ever run: found when it is submitted, each with its place in the file. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from coordinator.claims import DISK, NOTHING, Claim, counted, labels_of, missing_label, told
from coordinator.model import Node, Pool
from wire.spec import GroupSpec, JobSpec, PoolSpec

Problem = tuple[str, str, str]
"""(path into the spans, code, sentence)."""
_CODE: Final = "B604"


def too_wide(job: JobSpec, claim: PoolSpec | None, live: Pool | None) -> list[Problem]:
    """Tasks that need more than any node of the pool has would wait for ever."""
    declared = live.options if live is not None and live.declared else claim
    nodes = [node for node in live.nodes.values() if not node.left] if live is not None else []
    return [*_too_many_slots(job, declared, nodes), *_too_needy(job, declared, nodes)]


def _too_many_slots(job: JobSpec, options: PoolSpec | None, nodes: list[Node]) -> Iterator[Problem]:
    offers = [node.slots for node in nodes]
    if options is not None and (options.slots is not None or not offers):
        offers.append(options.slots or 1)
    widest = max(offers, default=None)
    for group in job.groups if widest is not None else ():
        if group.slots > (widest or 0):
            text = f"`{group.name}` takes {group.slots} slots, but no node of pool `{job.pool}` has more than {widest}"
            yield f"job/{job.name}/task/{group.name}/slots", _CODE, text


def _too_needy(job: JobSpec, options: PoolSpec | None, nodes: list[Node]) -> Iterator[Problem]:
    """What nodes have beside slots only they say: while one was not heard, or more are to come, nobody knows."""
    if not nodes or any(node.join is None for node in nodes) or to_come(options, len(nodes)):
        return
    most = {name: max(node.offer.get(name, 0) for node in nodes) for node in nodes for name in node.offer}
    reserve = Claim.of_dirs(job.dirs) or NOTHING
    if (taken := reserve.get(DISK, 0)) > most.get(DISK, 0):
        largest = max(job.dirs, key=lambda spec: spec.size_bytes or 0)
        what = f"the directories of `{job.name}` take {told(DISK, taken)}"
        yield f"job/{job.name}/dir/{largest.name}/size", _CODE, f"{what}, but {_none_has(job, DISK, most)}"
        reserve = NOTHING
    for group in job.groups:
        yield from _group(job, group, nodes, most, reserve)


def _group(
    job: JobSpec, group: GroupSpec, nodes: list[Node], most: dict[str, int], reserve: Claim
) -> Iterator[Problem]:
    claim, path = Claim.of(group.needs) or NOTHING, f"job/{job.name}/task/{group.name}/needs"
    labels, found = labels_of(group.needs), False
    for name, share in claim.items():
        if share > most.get(name, 0):
            found = True
            text = f"`{group.name}` needs {told(name, share)}, but {_none_has(job, name, most)}"
            yield f"{path}/{name}", _CODE, text
    for wanted in labels:
        if all(missing_label((wanted,), node.labels) for node in nodes):
            found = True
            label = missing_label((wanted,), nodes[0].labels)
            text = f"`{group.name}` needs a node with the label `{label}`, but no node of pool `{job.pool}` has it"
            yield f"{path}/labels", _CODE, text
    opening = reserve.plus(claim, 1)
    if not found and not any(_holds(node, opening) and not missing_label(labels, node.labels) for node in nodes):
        parts = [told(name, share) for name, share in opening.items()]
        parts += [f"the label `{text}`" for text in group.needs.labels]
        together = f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]
        of_dirs = " with the directories of its job" if reserve else ""
        has = "both" if len(parts) == 2 else "all of it"
        text = f"`{group.name}` needs {together}{of_dirs}, but no node of pool `{job.pool}` has {has}"
        yield path, _CODE, text


def to_come(options: PoolSpec | None, there: int) -> int:
    """How many nodes the pool declares beyond those that are there."""
    return max(0, (options.nodes or 0) - there) if options is not None else 0


def _holds(node: Node, claim: Claim) -> bool:
    return all(share <= node.offer.get(name, 0) for name, share in claim.items())


def _none_has(job: JobSpec, name: str, most: dict[str, int]) -> str:
    largest = most.get(name, 0)
    return f"no node of pool `{job.pool}` has {f'more than {counted(name, largest)}' if largest else 'any'}"
