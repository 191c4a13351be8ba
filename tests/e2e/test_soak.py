"""The soak, shortened: the long one is `make soak`."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.soak import soak
from tests.e2e.soak_acts import ACTS


def test_after_a_soak_nothing_is_owed_nothing_is_left_and_every_job_is_explained(tmp_path: Path) -> None:
    found, told = soak(tmp_path, jobs=8, seconds=0.0, seed=4, hurry=8.0)
    assert found == []
    assert set(told) == set(ACTS)
