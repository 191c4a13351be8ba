"""What pools are like: set by the first file that declares one, changed by their operators while they live."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile
from typing import Any, Final

from msgspec import structs

from coordinator.desk import Desk
from coordinator.model import Pool
from coordinator.records import PoolSet
from wire.arms import written
from wire.spec import DEFAULT_LOST_AFTER_MS, Command, Elevation, Placement, PoolSpec, Sharing
from wire.template import RUN_NAMES, Scope, TemplateError, render

OPTIONS: Final[dict[str, tuple[str, Any]]] = {
    "nodes": ("nodes", 1),
    "slots": ("slots", 1),
    "placement": ("placement", Placement.SPREAD),
    "sharing": ("sharing", Sharing.FAIR),
    "elevation": ("elevation", Elevation.FORBIDDEN),
    "lost_after_ms": ("lost_after", DEFAULT_LOST_AFTER_MS),
}
"""Pool options in the document, as people write them, and what each is in a pool whose block does not name it."""
MAX_SHOWN: Final = 64 * 1024
"""Characters of a start that are shown."""
_ALL: Final = {**OPTIONS, "start": ("start", None)}


def is_declared(desk: Desk, name: str) -> bool:
    """Whether some file has set the pool's options; an agent that names a pool sets none."""
    live = desk.cluster.pools.get(name)
    return live is not None and live.declared


def options_after(desk: Desk, claim: PoolSpec, whole: bool = False) -> PoolSpec:
    """What the pool is when the block was applied: an option that it does not name stays, and so does the start, but
    where the block is the `whole` pool (`pool apply`)."""
    if not is_declared(desk, claim.name):
        return claim
    named = {field: value for field in _ALL if (value := getattr(claim, field)) is not None}
    if whole:
        named["start"] = claim.start
    return structs.replace(desk.cluster.pools[claim.name].options, **named)


def changes(desk: Desk, claim: PoolSpec, whole: bool = False) -> list[str]:
    """The options of the pool that the block changes, as people write them."""
    before = desk.cluster.pools[claim.name].options if is_declared(desk, claim.name) else PoolSpec(name=claim.name)
    after = options_after(desk, claim, whole)
    return [
        option
        for field, (option, default) in _ALL.items()
        if _or(getattr(after, field), default) != _or(getattr(before, field), default)
    ]


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def start_shown(pool: Pool, texts: bool) -> dict[str, Any] | None:
    """The pool's start as `pool show` prints it; without `texts` what it runs and brings in is left out."""
    start = pool.options.start
    if start is None:
        return None
    backoff = start.backoff
    return {
        **(_texts(start) if texts else dict.fromkeys(("run", "script", "env", "files", "exit"))),
        "timeout_s": None if start.timeout_ms is None else start.timeout_ms / 1000,
        "retries": start.retries,
        "backoff_s": None if backoff is None else [backoff.first_ms / 1000, backoff.cap_ms / 1000],
        "elevated": start.elevated,
        "stop_signal": start.stop_signal,
        "stop_grace_s": start.stop_grace_ms / 1000,
    }


def _texts(start: Command) -> dict[str, Any]:
    """What it runs and brings in, as far as one answer takes it: a script may be as long as a frame. Of its environment
    the names: values may be secrets."""
    left = MAX_SHOWN

    def clipped(text: str) -> str:
        nonlocal left
        shown = text if len(text) <= left else f"{text[:left]}…"
        left -= min(left, len(text) + 1)
        return shown

    def each(texts: Iterable[str]) -> list[str]:
        return [clipped(text) for text in takewhile(lambda _: left, texts)]

    return {
        "run": None if start.argv is None else each(_text(part) for part in start.argv),
        "script": None if start.script is None else clipped(start.script),
        "env": each({**start.lets, **start.env}),
        "files": each(file.path for file in start.files),
        "exit": each(written(arm) for arm in start.arms),
    }


def _text(expression: Any) -> str:
    """What is known when it runs stands there as it is written."""
    try:
        return render(expression, _AS_WRITTEN)
    except TemplateError:
        return "${…}"


_AS_WRITTEN: Final = Scope([], {name: f"${{{name}}}" for name in RUN_NAMES}, {})


def set_options(desk: Desk, claim: PoolSpec, whole: bool = False) -> None:
    """Apply the block. Placement, sharing and elevation hold from the next grant on; see also `_join_again`."""
    if is_declared(desk, claim.name) and not changes(desk, claim, whole):
        return
    desk.keep(PoolSet(options_after(desk, claim, whole), at=desk.now))
    pool = desk.cluster.pools[claim.name]
    _join_again(desk, pool)
    desk.touch_pool(pool)


def _join_again(desk: Desk, pool: Pool) -> None:
    """Slots of nodes that name none themselves, and the lease of all of them, come with the node's next join, because
    the node itself holds to the numbers it was told: so these join at once, and what runs there goes on."""
    for node in pool.nodes.values():
        asked = node.join.slots if node.join is not None else None
        resized = asked is None and node.slots != (pool.options.slots or 1)
        if node.session is not None and (resized or node.lease_s != pool.lost_after_s):
            desk.close(node.session, "the options of the pool were set: join again")
