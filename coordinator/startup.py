"""The start of a node as it is known: which one it was given, in which boot, and how that ended."""

from __future__ import annotations

from dataclasses import dataclass, field

from coordinator.preparation import PhaseView


@dataclass(slots=True)
class NodeStart:
    """The pool's start as a node was given it last. It counts for this root and boot, and for what it runs."""

    number: int
    digest: str
    incarnation: str
    boot: str
    life: str
    """The start of the agent that was given it: another one tries what failed once more."""
    view: PhaseView = field(default_factory=PhaseView)
    running: tuple[int, float] | None = None
    """The attempt under way and since when, as far as the node said (for people, not durable)."""

    @property
    def succeeded(self) -> bool:
        return self.view.finished and self.view.succeeded

    @property
    def failed(self) -> bool:
        """For good: nothing of it goes on by itself."""
        return self.view.finished and not self.view.succeeded
