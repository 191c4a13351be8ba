"""Seeds that broke a promise once, each with what it was."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Regression:
    seed: int
    size: str
    was: str


REGRESSIONS: tuple[Regression, ...] = (
    Regression(814, "short", "a task started on a rebooted node whose preparation belonged to the boot before"),
    Regression(
        200732,
        "short",
        "a node drains, its Recalled is lost with the coordinator, its release is reported first: the simulator took "
        "what came back for cancelled",
    ),
    Regression(400435, "short", "a round settled by a report still held a grant until the consequences were taken"),
)
