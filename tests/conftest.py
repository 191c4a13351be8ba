"""What every test gets: hypothesis without chance or clock, interrupts that interrupt, and real processes in groups,
one test after another."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

TESTS = Path(__file__).parent
HOSTS = ("test_bootstrap.py", "test_cluster_doc.py", "test_cut_links.py")

settings.register_profile("poolkeeper", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("poolkeeper")


# Whoever started this in the background of a shell has it ignore SIGINT, and all that it starts too.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Daemons that a test runs inside of its own process set this for good."""
    os.umask(0o022)


class ByGroup(LoadScopeScheduling):
    """Real processes of hosts with networks of their own are one unit of work, all other real processes another."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        if not path.startswith("tests/e2e/"):
            return nodeid
        return "hosts" if path.removeprefix("tests/e2e/") in HOSTS else "e2e"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByGroup:
    """Of the two units the larger one is begun first, and each runs on one worker, one test after another."""
    return ByGroup(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(TESTS / "e2e"):
            item.add_marker(pytest.mark.e2e)
