"""What a node offers to be claimed, and what it is: resources measured or declared, numbers of GPUs, labels."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from agentd.cgroups import Controller, groups_above
from agentd.health import floor_of
from agentd.noted import note, noted
from wire.bounds import LABEL_NAME, MAX_GPUS, MAX_RESOURCES, NAME, is_label_value

GPUS: Final = "gpus"
_GPU: Final = re.compile(r"[A-Za-z0-9_:/-]{1,80}\Z")


class OfferError(ValueError):
    """What a node is told to offer is no such thing: a sentence."""


def measured() -> dict[str, float]:
    """What a node has without being told, its disk aside: of its machine what the control groups that it is in, a
    container's for instance, leave it."""
    cpus = float(len(os.sched_getaffinity(0)))
    memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return {
        "cpus": min([cpus, *filter(None, map(cpus_of_group, groups_above(Controller.CPU)))]),
        "memory": min([memory, *filter(None, map(memory_of_group, groups_above(Controller.MEMORY)))]),
    }


def cpus_of_group(group: str) -> float | None:
    """The processors that a control group may keep busy, of either version; None: no less than there are."""
    quota, period = [*_words(group, "cpu.max"), "", ""][:2]
    if not period:
        quota, period = ("".join(_words(group, f"cpu.cfs_{what}_us")) for what in ("quota", "period"))
    if not (quota.isdecimal() and period.isdecimal() and int(quota) and int(period)):
        return None
    return int(quota) / int(period)


def memory_of_group(group: str) -> float | None:
    """The bytes that a control group may have, of either version; None: no less than there are."""
    words = _words(group, "memory.max") or _words(group, "memory.limit_in_bytes")
    return float(words[0]) if words and words[0].isdecimal() else None


def _words(group: str, name: str) -> list[str]:
    """Of a file of the group; none where it has no such file."""
    try:
        return Path(group, name).read_text("ascii").split()
    except (OSError, UnicodeDecodeError):
        return []


def room_below(root: str, floor: int | None, remembered: Path, *, holds: bool) -> float:
    """The bytes that jobs may claim of the disk: what is free there beyond the floor. While the node `holds` what jobs
    left there, what was found before they came stands: what they were promised is theirs, used or not. Raises OSError.
    """
    if holds and (before := noted(remembered)) is not None and before.isdigit():
        return float(before)
    found = os.statvfs(root)
    room = max(0, found.f_bavail * found.f_frsize - floor_of(floor, found.f_blocks * found.f_frsize))
    note(remembered, str(room).encode())
    return float(room)


def resources_of(given: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Amounts by resource, later ones instead of earlier ones. Raises OfferError."""
    resources = dict(given)
    for name, amount in resources.items():
        if not NAME.match(name):
            raise OfferError(f"{name!r} is no name of a resource: letters, digits and `_`, 48 at most.")
        if not 0 <= amount < float("inf"):
            raise OfferError(f"{amount:g} of {name}: an amount is finite and not negative.")
    if len(resources) > MAX_RESOURCES:
        raise OfferError(f"A node has {MAX_RESOURCES} resources at most.")
    if (gpus := resources.get(GPUS, 0)) > MAX_GPUS or gpus != int(gpus):
        raise OfferError(f"{gpus:g} of {GPUS}: GPUs are whole, {MAX_GPUS} at most.")
    return resources


def gpus_of(resources: dict[str, float], listed: list[str]) -> tuple[str, ...]:
    """What tasks call the node's GPUs: as they are listed, else numbers from 0. Raises OfferError."""
    count = int(resources.get(GPUS, len(listed)))
    for gpu in listed:
        if not _GPU.match(gpu):
            raise OfferError(f"{gpu!r} is no GPU: write its number, or its id as `nvidia-smi -L` shows it.")
    if listed and (count != len(listed) or len(set(listed)) != count):
        raise OfferError(f"{len(set(listed))} GPUs are listed, and {count} declared: leave one of the two out.")
    return tuple(listed) or tuple(map(str, range(count)))


def labels_of(labels: dict[str, str]) -> dict[str, str]:
    """The labels, if they can be told and asked for. Raises OfferError."""
    for name, value in labels.items():
        if not LABEL_NAME.match(name) or not is_label_value(value):
            raise OfferError(f"{name!r} = {value!r} is no label: a name, and a value that can be printed.")
    if len(labels) > MAX_RESOURCES:
        raise OfferError(f"A node has {MAX_RESOURCES} labels at most.")
    return labels
