"""What earlier runs left when their machine died: their agents are started once more, to pay what they owe and go.

No coordinator is needed for that: an agent whose lifeline is at its end kills what is left of the jobs, runs the
releases in its journal and ends. Those of a `run` that was killed do the same by themselves and are left alone.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import Final, Self

from coordinator.cli import output
from coordinator.cli.connection import NoCoordinator, connect_to
from coordinator.cli.embedded import Cluster
from coordinator.cli.failure import Failure
from coordinator.cli.private import NODES, Agent, StateDirectory, abandoned
from wire.address import SOCKET_NAME

MOST_AT_ONCE: Final = 4
WAIT_S: Final = 30.0
"""How long the end of a run waits for them; after that they go on by themselves, and the next run looks again."""


class Leftovers:
    """The earlier runs that are being finished beside this one."""

    def __init__(self) -> None:
        self._clusters: list[Cluster] = []

    def __enter__(self) -> Self:
        """Start what is owed, without waiting for it; remove at once what owes nothing."""
        for state, agents in abandoned():
            with_roots = [agent for agent in agents if os.path.isdir(state.inside(NODES, agent.name))]
            if _alive(state) or len(self._clusters) >= MOST_AT_ONCE:
                state.release()
            elif with_roots:
                self._start(state, with_roots)
            else:
                _remove(state)
        return self

    def _start(self, state: StateDirectory, agents: list[Agent]) -> None:
        output.remark(f"finishing what an earlier run left in {state.path}")
        cluster = Cluster(state, agents)
        self._clusters.append(cluster)
        cluster.used = True
        cluster.let_go()
        try:
            cluster.start_agents()
        except Failure as failure:
            output.warn(failure.message)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for them, for a while, and remove what owes nothing any more."""
        for cluster in self._clusters:
            cluster.stop(WAIT_S)
            if cluster.gone:
                _remove(cluster.state)
            else:
                output.warn(f"not all of the earlier run in {cluster.state.path} is released; the next run looks again")
                cluster.state.release()


def _alive(state: StateDirectory) -> bool:
    """Whether a coordinator answers there: its daemons are still at it and need nobody."""
    try:
        connect_to(state.inside(SOCKET_NAME)).close()
    except NoCoordinator:
        return False
    except Failure:
        return True
    return True


def _remove(state: StateDirectory) -> None:
    for what in state.remove():
        output.warn(f"left behind: {what}")
