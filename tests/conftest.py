"""What every test gets: hypothesis without chance or clock, interrupts that interrupt, and real processes in one
group, one test after another."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import settings

TESTS = Path(__file__).parent

settings.register_profile("poolkeeper", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("poolkeeper")


# Whoever started this in the background of a shell has it ignore SIGINT, and all that it starts too.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(TESTS / "e2e"):
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.xdist_group("e2e"))
