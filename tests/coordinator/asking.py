"""What is asked for: commands, groups of tasks, jobs and documents, in few words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from wire.spec import SpecDocument


def command(**options: Any) -> dict[str, Any]:
    return {"argv": ["true"], **options}


def tasks(
    name: str = "t", size: int | None = None, *, after: Iterable[Any] = (), slots: int = 1, **options: Any
) -> Any:
    """A group: `size` tasks `name[0]`.., or a single one. In `after` a number is that group, all of it."""
    axes = [] if size is None else [{"names": ["i"], "range": [0, size - 1, 1], "values": None}]
    return {
        "name": name,
        "axes": axes,
        "command": command(**options),
        "slots": slots,
        "after": [{"group": each} if isinstance(each, int) else each for each in after],
    }


def prep(wait: bool = True, parallel: int | None = None, **options: Any) -> dict[str, Any]:
    return {"command": command(**options), "wait": wait, "parallel": parallel}


def release(parallel: int | None = None, **options: Any) -> dict[str, Any]:
    return {"command": command(**options), "parallel": parallel}


def job(name: str = "j", *groups: Any, pool: str = "p", **options: Any) -> dict[str, Any]:
    return {"name": name, "pool": pool, "groups": list(groups or [tasks()]), **options}


def document(*jobs: dict[str, Any], pools: Iterable[dict[str, Any]] = ()) -> dict[str, Any]:
    """As the language compiles it: every field stands there, and it fits the types."""
    raw = {"format": 1, "pools": list(pools), "jobs": list(jobs)}
    plain: dict[str, Any] = msgspec.to_builtins(msgspec.convert(raw, SpecDocument))
    return plain
