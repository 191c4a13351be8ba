"""What tasks claim of a node beside its slots, and what it must be: shares in whole numbers, and labels. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import ceil
from typing import Final

from coordinator.render import size
from wire.spec import DirSpec, Needs

CPUS: Final = "cpus"
MEMORY: Final = "memory"
DISK: Final = "disk"
GPUS: Final = "gpus"
WHOLE: Final = frozenset({MEMORY, DISK, GPUS})
"""Counted in bytes and in pieces; everything else in thousandths."""
THOUSANDTHS: Final = 1000
ROUNDING: Final = 1e-6
MAX_OFFER: Final = 2.0**53
"""Of any resource: a node that says more, or that it is endless, has this."""


def _units(name: str) -> int:
    return 1 if name in WHOLE else THOUSANDTHS


class Claim(dict[str, int]):
    """Shares of a node by resource, in whole numbers, so that sums are exact. None is 0, and none changes once made."""

    __slots__ = ()

    @classmethod
    def of(cls, needs: Needs) -> Claim | None:
        """What a task that needs this takes while it runs; None: nothing."""
        wanted = {CPUS: needs.cpus, MEMORY: needs.memory_bytes, DISK: needs.disk_bytes, GPUS: needs.gpus}
        amounts = {**wanted, **needs.others}
        shares = {name: ceil(amount * _units(name) - ROUNDING) for name, amount in amounts.items() if amount}
        return cls(shares) or None

    @classmethod
    def of_dirs(cls, dirs: Iterable[DirSpec]) -> Claim | None:
        """What a job's directories take of each node that it is on; None: nothing that was said."""
        total = sum(spec.size_bytes or 0 for spec in dirs)
        return cls({DISK: total}) if total else None

    @classmethod
    def offered(cls, resources: Mapping[str, float]) -> Claim:
        """All that a node has, as it says itself; a part that nobody could claim is none."""
        shares = {name: int(min(amount, MAX_OFFER) * _units(name) + ROUNDING) for name, amount in resources.items()}
        return cls({name: share for name, share in shares.items() if share > 0})

    def times_in(self, left: Claim) -> int:
        """How often it fits; below 0: for how many tasks there is too little already."""
        return min(left.get(name, 0) // share for name, share in self.items())

    def lack_in(self, left: Claim) -> float:
        """The largest part of a share of it that is missing there; 0 where it fits."""
        return max(0.0, *((share - left.get(name, 0)) / share for name, share in self.items()))

    def plus(self, other: Claim, times: int) -> Claim:
        """Together with so many of another."""
        total = Claim(self)
        for name, share in other.items():
            if amount := total.get(name, 0) + times * share:
                total[name] = amount
            else:
                total.pop(name, None)
        return total


NOTHING: Final = Claim()


def amount_of(name: str, share: int) -> float:
    """A share as people count it."""
    return share if name in WHOLE else share / THOUSANDTHS


def counted(name: str, share: int) -> str:
    """A share as a number that people read: `2`, `4.0 GiB`."""
    return size(share) if name in (MEMORY, DISK) else f"{amount_of(name, share):g}"


def told(name: str, share: int) -> str:
    """A share in words: `2 GPUs`, `4.0 GiB of memory`."""
    single, several = _NOUNS.get(name, (f"of `{name}`",) * 2)
    return f"{counted(name, share)} {single if share == _units(name) else several}"


_NOUNS: Final = {
    CPUS: ("processor", "processors"),
    MEMORY: ("of memory", "of memory"),
    DISK: ("on disk", "on disk"),
    GPUS: ("GPU", "GPUs"),
}


Label = tuple[str, str | None]
"""A label's name, and the value that it must have (None: any)."""


def labels_of(needs: Needs) -> tuple[Label, ...]:
    """The labels that a node must have: `name` or `name=value`."""
    parts = (text.partition("=") for text in needs.labels)
    return tuple((name, value if equals else None) for name, equals, value in parts)


def missing_label(wanted: Iterable[Label], worn: Mapping[str, str]) -> str | None:
    """The first label that is not among these, as it was asked for."""
    for name, value in wanted:
        if name not in worn or (value is not None and worn[name] != value):
            return name if value is None else f"{name}={value}"
    return None
