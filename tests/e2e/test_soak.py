"""The soak, shortened: the long one is `make soak`."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.soak import ACTS, soak


def test_after_a_soak_nothing_is_owed_nothing_is_left_and_every_job_is_explained(tmp_path: Path) -> None:
    found, told = soak(tmp_path, jobs=16, seconds=15.0, seed=4)
    assert found == []
    assert len(told) > len(ACTS) // 2
