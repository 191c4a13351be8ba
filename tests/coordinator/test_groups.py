"""What a group keeps of its tasks."""

from __future__ import annotations

import msgspec

from coordinator.groups import Group
from coordinator.records import Ended, Verdict
from tests.coordinator.playbook import tasks
from wire.messages import Outcome
from wire.spec import GroupSpec


def test_a_job_that_saw_more_nodes_than_two_bytes_can_count_goes_on() -> None:
    group = Group(0, msgspec.convert(tasks(size=3), GroupSpec))
    for index, node in enumerate((7, 65_535, 65_536)):
        end = Ended(1, index, Verdict.SUCCEEDED, Outcome.EXITED, 0, None, 1.0, 2.0, 0.1, 1024, None, None)
        group.finish(index, node, end)
    assert group.finished is not None
    assert list(group.finished.node) == [7, 65_535, 65_536]
