"""What a node knows for good: the fold of its records, and nothing else."""

from __future__ import annotations

from typing import Final

import msgspec


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What this node is; `incarnation` comes from its root directory, `root` is its absolute path as commands see it."""

    pool: str
    node: str
    root: str
    incarnation: str
    slots: int | None = None
    resources: dict[str, float] = {}
    labels: dict[str, str] = {}
    elevation: bool = False
    containment: str = "subreaper"
    version: str = ""
    embedded: bool = False
    path_additions: tuple[str, ...] = ()
    site_env: dict[str, str] = {}


WORKITEMS: Final = "workitems"
