"""One pass of feeding keepers: which slots of the node are free, what else of it is left, and who may take it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from agentd.keepers import Keeper, Keepers, Stage
from agentd.model import Grant, NodeConfig
from agentd.records import Allowance, Purpose

EXACT: Final = 1e-9
"""Shares of a node that fill it exactly do fit, whatever the last digit of their sum."""


class Feeding:
    """One pass of feeding: which slots and how much of the node's resources are free, and which keepers got what."""

    def __init__(self, slots: int, config: NodeConfig, keepers: Keepers) -> None:
        self._keepers = keepers
        busy = [keeper for keeper in keepers.all.values() if keeper.slots]
        taken = [slot for keeper in busy for slot in keeper.slots]
        free = set(range(slots)).difference(taken)
        self._free = sorted(free)[: max(0, slots - len(taken))]
        self._resources = config.resources
        self._left = dict(config.resources)
        held = {gpu for keeper in busy for gpu in keeper.gpus}
        self._gpus = [gpu for gpu in config.gpus if gpu not in held]
        for keeper in busy:
            self._claim(keeper.allowance)

    def _claims(self, allowance: Allowance) -> Iterator[tuple[str, float]]:
        """What a command of this allowance takes of the node, GPUs aside: all of what is less than it wants."""
        needs = allowance.needs
        named = ("cpus", needs.cpus), ("memory", needs.memory_bytes), ("disk", needs.disk_bytes)
        for name, wanted in (*named, *needs.others.items()):
            if wanted is not None and name in self._resources:
                yield name, min(wanted, self._resources[name])

    def _claim(self, allowance: Allowance) -> None:
        for name, amount in self._claims(allowance):
            self._left[name] -= amount

    def _lanes(self, allowance: Allowance, width: int) -> int:
        """How many more commands could run beside each other."""
        lanes = len(self._free) // width
        for name, amount in self._claims(allowance):
            if amount > 0:
                lanes = min(lanes, int(self._left[name] / amount + EXACT))
        if allowance.needs.gpus:
            lanes = min(lanes, len(self._gpus) // allowance.needs.gpus)
        return max(0, lanes)

    def share(self, keepers: list[Keeper], width: int, count: int) -> int:
        """How much each of these may hold when `count` more commands are to be shared out evenly, so that none hoards
        what others could run."""
        busy = [keeper for keeper in keepers if len(keeper.slots) == width]
        lanes = max(1, len(busy) + len(self._free) // width)
        return -(-(count + sum(len(keeper.items) for keeper in busy)) // lanes)

    def has_room(self, keeper: Keeper, width: int, depth: int) -> bool:
        """Whether it can be given more of this width now; an idle one takes its slots and its share of the node."""
        if keeper.items:
            return len(keeper.slots) == width and len(keeper.items) <= depth // 2
        if not keeper.slots and self._lanes(keeper.allowance, width) > 0:
            keeper.slots, self._free = tuple(self._free[:width]), self._free[width:]
            if gpus := keeper.allowance.needs.gpus:
                keeper.gpus, self._gpus = tuple(self._gpus[:gpus]), self._gpus[gpus:]
            self._claim(keeper.allowance)
        return len(keeper.slots) == width

    def start_keepers(self, grant: Grant, allowance: Allowance, width: int, count: int) -> None:
        """Start as many as the free slots can feed, if none is idle."""
        keepers = self._keepers.for_tasks(grant.job, allowance)
        coming = sum(keeper.stage in (Stage.STARTING, Stage.SETTLING) for keeper in keepers)
        if self._keepers.may_start():
            for _ in range(min(count, self._lanes(allowance, width)) - coming):
                self._keepers.start(grant.job, grant.round, Purpose.TASKS, allowance)

    def settle(self) -> None:
        """An idle keeper holds nothing."""
        for keeper in self._keepers.all.values():
            if keeper.slots and not keeper.items:
                keeper.rest()
