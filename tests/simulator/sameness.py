"""Whether two durable states are the same, and where they differ if not."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

import msgspec

OF_THIS_LIFE: Final[dict[str, frozenset[str]]] = {
    "Node": frozenset(
        {
            "session",
            "join",
            "offer",
            "joined",
            "missing",
            "holding",
            "leaving",
            "unusable",
            "stuck",
            "clearing",
            "dismissed",
            "heard_at",
            "reported",
            "last_session",
            "fenced",
            "moved",
            "start_held",
            "taken_over",
            "alarm",
            "joins_left",
            "joins_at",
            "corrected",
            "fruitless",
            "counted_to",
            "rests_until",
        }
    ),
    "Pool": frozenset({"dirty", "start_told"}),
    "Sweep": frozenset({"_plain"}),
    "Job": frozenset({"ineligible_since"}),
    "Grant": frozenset({"recalled", "asked", "kept_back", "running", "withdrawn", "stopping"}),
    "NodeJob": frozenset({"running", "delayed"}),
    "NodeStart": frozenset({"running"}),
    "Group": frozenset({"again", "durations", "waiting", "gate", "links", "pairings", "followers"}),
}
"""Attributes that a core keeps beside its durable state and that no record changes, by class. `reported` may fall back
when a deleted job's rows are forgotten: what is then reported again is of that job, and counts for nothing."""
ORDERED: Final = (".grants", ".jobs", ".rounds")
"""Dicts whose order decides something."""
DEPTH_MAX: Final = 40
_PLAIN: Final = (str, bytes, int, float, bool, type(None), enum.Enum, bytearray, range)


def difference(one: Any, other: Any) -> str | None:
    """The first place where two states differ, or None. Classes of both must be the same."""
    return _compare(one, other, "", 0, set())


def _compare(one: Any, other: Any, path: str, depth: int, seen: set[tuple[int, int]]) -> str | None:
    if one is other:
        return None
    if type(one) is not type(other) or isinstance(one, _PLAIN):
        return None if one == other else f"{path}: {one!r:.80} is not {other!r:.80}"
    if (id(one), id(other)) in seen:
        return None
    seen.add((id(one), id(other)))
    assert depth < DEPTH_MAX, f"{path} is too deep"
    if isinstance(one, msgspec.Struct) and one.__struct_config__.frozen:
        return None if one == other else f"{path}: {one!r:.120} is not {other!r:.120}"
    if isinstance(one, dict):
        gone = [key for key in one if key not in other] or [key for key in other if key not in one]
        if gone:
            return f"{path}: keys differ by {gone[:3]!r}"
        if path.endswith(ORDERED) and list(one) != list(other):
            return f"{path}: keys in another order"
        pairs: Iterator[tuple[str, Any, Any]] = ((f"[{key!r}]", value, other[key]) for key, value in one.items())
    elif isinstance(one, (list, tuple, deque)):
        if len(one) != len(other):
            return f"{path}: {len(one)} entries, not {len(other)}"
        pairs = ((f"[{n}]", left, right) for n, (left, right) in enumerate(zip(one, other, strict=True)))
    elif isinstance(one, (set, frozenset)) or (not hasattr(one, "__dict__") and not _slots(one)):
        return None if one == other else f"{path}: {one!r:.80} is not {other!r:.80}"
    else:
        skip = OF_THIS_LIFE.get(type(one).__name__, frozenset())
        names = [name for name in (_slots(one) or list(vars(one))) if name not in skip]
        pairs = ((f".{name}", getattr(one, name, None), getattr(other, name, None)) for name in names)
    for name, left, right in pairs:
        found = _compare(left, right, path + name, depth + 1, seen)
        if found is not None:
            return found
    return None


def _slots(value: Any) -> list[str]:
    return [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
