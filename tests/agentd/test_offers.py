"""What a node offers: measured, or as its administrator declares it; mistakes are sentences."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentd import offers
from agentd.__main__ import Failure, _offers
from agentd.cgroups import Controller, groups_above
from agentd.config import FileConfig
from agentd.offers import (
    OfferError,
    cpus_of_group,
    gpus_of,
    labels_of,
    measured,
    memory_of_group,
    resources_of,
    room_below,
)

GIB = 1 << 30


def test_the_command_line_wins_over_the_file_and_the_file_over_what_is_measured() -> None:
    file = FileConfig(resources={"cpus": 3.0, "licence": 1.0}, labels={"zone": "a"})
    offers = _offers(file, ("licence=2.5", "gpus=2"), ("zone=b", "avx512"))
    assert offers["resources"].pop("memory") > 0
    assert offers == {
        "resources": {"cpus": 3.0, "licence": 2.5, "gpus": 2.0},
        "gpus": ("0", "1"),
        "labels": {"zone": "b", "avx512": ""},
    }


def test_gpus_that_are_listed_are_counted() -> None:
    offers = _offers(FileConfig(gpus=["GPU-1f", "3"]), (), ())
    assert (offers["gpus"], offers["resources"]["gpus"]) == (("GPU-1f", "3"), 2.0)
    assert gpus_of({}, []) == gpus_of({"gpus": 0.0}, []) == ()


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        ({"a b": 1.0}, "no name of a resource"),
        ({"nan": float("nan")}, "finite and not negative"),
        ({"x": float("inf")}, "finite and not negative"),
        ({"x": -1.0}, "finite and not negative"),
        ({"gpus": 0.5}, "GPUs are whole"),
        ({"gpus": 5000.0}, "GPUs are whole, 1024 at most"),
        ({f"x{n}": 1.0 for n in range(33)}, "32 resources at most"),
    ],
)
def test_what_is_no_amount_of_a_resource_is_refused(resources: dict[str, float], said: str) -> None:
    with pytest.raises(OfferError, match=said):
        resources_of(resources.items())


@pytest.mark.parametrize(
    ("count", "listed", "said"),
    [
        (3, ["0", "1"], "2 GPUs are listed, and 3 declared"),
        (2, ["0", "0"], "1 GPUs are listed"),
        (1, ["a,b"], "no GPU"),
    ],
)
def test_gpus_that_can_not_be_told_apart_are_refused(count: int, listed: list[str], said: str) -> None:
    with pytest.raises(OfferError, match=said):
        gpus_of({"gpus": float(count)}, listed)


@pytest.mark.parametrize("labels", [{"a b": ""}, {"a": "\x1b[2J"}, {"a": "x" * 300}, {f"l{n}": "" for n in range(33)}])
def test_what_is_no_label_is_refused(labels: dict[str, str]) -> None:
    with pytest.raises(OfferError):
        labels_of(labels)


def test_mistakes_on_the_command_line_end_it_with_their_sentence() -> None:
    with pytest.raises(Failure, match=r"0\.5 of gpus: GPUs are whole"):
        _offers(FileConfig(), ("gpus=0.5",), ())


# ---- what a container leaves


@pytest.mark.parametrize(
    ("files", "cpus", "memory"),
    [
        ({"cpu.max": "150000 100000\n", "memory.max": "1073741824\n"}, 1.5, GIB),
        ({"cpu.max": "max 100000\n", "memory.max": "max\n"}, None, None),
        ({"cpu.cfs_quota_us": "50000\n", "cpu.cfs_period_us": "100000\n"}, 0.5, None),
        ({"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}, None, None),
        ({"memory.limit_in_bytes": "1073741824\n"}, None, GIB),
        ({"cpu.max": "100000 0\n", "memory.max": "\n"}, None, None),
        ({}, None, None),
    ],
)
def test_of_a_machine_is_offered_what_its_control_groups_leave(
    tmp_path: Path, files: dict[str, str], cpus: float | None, memory: float | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert (cpus_of_group(str(tmp_path)), memory_of_group(str(tmp_path))) == (cpus, memory)


def test_no_more_is_offered_than_any_group_above_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own/memory.max").write_text("max")
    (tmp_path / "memory.max").write_text("4096")
    (tmp_path / "own/cpu.max").write_text("25000 100000")
    monkeypatch.setattr(offers, "groups_above", lambda controller: [str(tmp_path / "own"), str(tmp_path)])
    assert measured() == {"cpus": 0.25, "memory": 4096.0}


def test_the_groups_above_ours_are_there_to_be_read() -> None:
    for controller in Controller:
        assert all(Path(group).is_dir() for group in groups_above(controller))


# ---- the disk


def test_room_is_what_is_free_beyond_the_floor(tmp_path: Path) -> None:
    found = os.statvfs(tmp_path)
    free = found.f_bavail * found.f_frsize
    room = room_below(str(tmp_path), free // 2, tmp_path / "disk", holds=False)
    assert abs(room - (free - free // 2)) < GIB
    assert room_below(str(tmp_path), 1 << 60, tmp_path / "disk", holds=False) == 0


def test_what_was_found_before_jobs_came_stands_while_something_of_them_is_there(tmp_path: Path) -> None:
    remembered = tmp_path / "disk"
    remembered.write_text("12345")
    assert room_below(str(tmp_path), 0, remembered, holds=True) == 12345
    assert room_below(str(tmp_path), 0, remembered, holds=False) > 12345
    assert remembered.read_text() != "12345"
    remembered.write_text("garbled")
    assert room_below(str(tmp_path), 0, remembered, holds=True) > 12345
