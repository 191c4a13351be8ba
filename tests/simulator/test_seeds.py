"""Thousands of little disasters: every promise holds after every event, and everything comes to its end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulator.__main__ import run_seed
from tests.simulator.regressions import REGRESSIONS, Regression

CHUNKS = 20
SEEDS_IN_A_CHUNK = 20
ROUGH_CHUNKS = 6
STRANGE_CHUNKS = 4
TWIN_CHUNKS = 2
OPERATED_CHUNKS = 3
LONG_SEEDS = 16
START_SEEDS = 12
BALKING_SEEDS = 20
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_short_seed_breaks_a_promise(chunk: int) -> None:
    for seed in range(chunk * SEEDS_IN_A_CHUNK, (chunk + 1) * SEEDS_IN_A_CHUNK):
        report = run_seed(seed, "short")[2]
        assert report is None, report


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(LONG_SEEDS))
def test_no_long_seed_breaks_a_promise(seed: int) -> None:
    report = run_seed(seed, "long")[2]
    assert report is None, report


@pytest.mark.parametrize("chunk", range(ROUGH_CHUNKS))
def test_no_rough_seed_breaks_a_promise(chunk: int) -> None:
    for seed in range(chunk * SEEDS_IN_A_CHUNK, (chunk + 1) * SEEDS_IN_A_CHUNK):
        report = run_seed(seed, "rough")[2]
        assert report is None, report


@pytest.mark.parametrize("chunk", range(STRANGE_CHUNKS))
def test_no_seed_among_strangers_breaks_a_promise(chunk: int) -> None:
    for seed in range(chunk * SEEDS_IN_A_CHUNK, (chunk + 1) * SEEDS_IN_A_CHUNK):
        report = run_seed(seed, "strange")[2]
        assert report is None, report


@pytest.mark.parametrize("chunk", range(OPERATED_CHUNKS))
def test_no_seed_with_operators_breaks_a_promise(chunk: int) -> None:
    for seed in range(chunk * SEEDS_IN_A_CHUNK, (chunk + 1) * SEEDS_IN_A_CHUNK):
        report = run_seed(seed, "operated")[2]
        assert report is None, report


def test_no_seed_with_a_node_that_does_no_work_breaks_a_promise() -> None:
    for seed in range(BALKING_SEEDS):
        report = run_seed(seed, "balking")[2]
        assert report is None, report


@pytest.mark.parametrize("chunk", range(TWIN_CHUNKS))
def test_f36_no_seed_with_a_copied_machine_runs_a_task_twice_at_once(chunk: int) -> None:
    for seed in range(chunk * SEEDS_IN_A_CHUNK, (chunk + 1) * SEEDS_IN_A_CHUNK):
        report = run_seed(seed, "twins")[2]
        assert report is None, report


def test_f10_no_seed_with_a_start_runs_anything_before_it_has_succeeded_in_each_boot() -> None:
    for seed in range(START_SEEDS):
        report = run_seed(seed, "starts")[2]
        assert report is None, report


@pytest.mark.parametrize("regression", REGRESSIONS, ids=lambda regression: f"{regression.size}-{regression.seed}")
def test_a_seed_that_once_broke_a_promise_holds_it_now(regression: Regression) -> None:
    report = run_seed(regression.seed, regression.size)[2]
    assert report is None, f"{regression.was}\n{report}"


def test_a_seed_has_one_course_whatever_the_hash_seed() -> None:
    script = "from tests.simulator.__main__ import run_seed; print([run_seed(s, 'short')[:2] for s in (3, 7, 11)])"
    courses = {
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env={"PYTHONHASHSEED": number},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for number in ("0", "1", "4711")
    }
    assert len(courses) == 1
