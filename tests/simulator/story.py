"""What a failing seed says: the breach, the command that replays it, and the story of the job concerned."""

from __future__ import annotations

from typing import Final

from tests.simulator.invariants import Breach
from tests.simulator.simulation import Simulation

LINES_MAX: Final = 60


def replay_command(seed: int, size: str) -> str:
    if size == "short":
        return f"make sim SEED={seed} SEEDS=1"
    return f".venv/bin/python -m tests.simulator --first {seed} --seeds 1 --size {size}"


def tell(simulation: Simulation, problem: BaseException, size: str) -> str:
    """The whole report of one failing seed."""
    job = problem.job if isinstance(problem, Breach) else None
    kind = type(problem).__name__
    head = str(problem) if isinstance(problem, Breach) else f"{kind}: {problem}"
    lines = story(simulation, job)
    return "\n".join(
        (
            f"seed {simulation.seed} ({size}) broke a promise at {simulation.world.now:.3f} s: {head}",
            f"replay it with: {replay_command(simulation.seed, size)}",
            f"the story of {job or 'everything'}, its last {len(lines)} lines:",
            *lines,
        )
    )


def story(simulation: Simulation, job: str | None, most: int = LINES_MAX) -> list[str]:
    """The last lines of the trace that concern a job, faults included."""
    chosen = [
        f"  {at:10.3f} {where:<14} {what}"
        for at, where, what in simulation.world.lines
        if job is None or where == "fault" or job in what or f"'{job}" in what
    ]
    return chosen[-most:]
