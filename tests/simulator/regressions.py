"""Seeds that broke a promise once, each with what it was. A seed means the same as long as the plans are drawn alike;
what mattered most has a scenario of its own in `test_faults`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Regression:
    seed: int
    size: str
    was: str


REGRESSIONS: tuple[Regression, ...] = (
    Regression(16, "short", "a release ran on a node where nothing of its job had ever started"),
    Regression(346, "rough", "a drained node released a round of which nothing had begun"),
    Regression(120, "rough", "a task that a full disk kept from starting was told as failed: its round has begun"),
    Regression(398, "rough", "a release ran on a node where nothing of its job had ever started"),
    Regression(282, "rough", "a preparation began while its directories were made anew, and its files asked for again"),
    Regression(
        113, "operated", "a node with a process that could not be killed was given up and never told to release"
    ),
    Regression(23, "strange", "a revoked node that came back was given its job anew while it still held the old round"),
    Regression(
        14, "twins", "results of a copied node were taken for old ones by their numbers, and its job never ended"
    ),
    Regression(500135, "starts", "what an earlier round had left was looked for a whole keep after the next one"),
    Regression(900089, "rough", "a task began after its lease, as its files had come while its keeper was stopped"),
    Regression(801030, "operated", "a slot was kept for a wide task that queued at another node by then"),
)
