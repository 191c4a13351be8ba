"""A core is what its log says: every prefix of a log gives the state that the live core had there."""

from __future__ import annotations

import pytest

from tests.simulator.sameness import difference
from tests.simulator.simulation import Plan, Simulation


@pytest.mark.parametrize(("seed", "size"), [*((seed, "short") for seed in range(8)), (3, "strange"), (6, "strange")])
def test_every_prefix_of_every_log_gives_the_state_of_its_moment(seed: int, size: str) -> None:
    simulation = Simulation(seed, Plan.draw(seed, size))
    simulation.compare_every = 1
    simulation.run()
    assert simulation.coordinator_disk.log("coordinator").commits > 5


def test_a_difference_is_found_where_it_is() -> None:
    one, other = {"jobs": [1, [2, 3]]}, {"jobs": [1, [2, 4]]}
    assert difference(one, one) is None
    assert difference(one, other) == "['jobs'][1][1]: 3 is not 4"
