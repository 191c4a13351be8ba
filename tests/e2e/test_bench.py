"""The benchmarks run, with numbers too small to mean anything."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import CASES

ROOT = Path(__file__).parent.parent.parent
TINY = ["--tasks", "12", "--many", "1000", "--nodes", "20", "--lines", "3", "--repeat", "1", "--rounds", "1"]
FIGURES = {
    "tasks": ["spawn floor", "of the floor"],
    "fences": ["spawn floor", "of the bare one"],
    "submit": ["1,000 to 10", "tasks to the floor"],
    "memory": ["bytes a queued task"],
    "events": ["watched to alone", "of what readers leave", "events read a second", "who follows, its peak, MiB"],
    "logs": ["logs -f, 95th percentile", "floor: tail -f", "within 200 ms"],
    "explain": ["explain, a task that waits for its turn", "top", "times its floor"],
    "commands": ["floor: a bare interpreter", "job show, ms"],
}


@pytest.mark.parametrize("case", CASES)
def test_a_benchmark_prints_its_figures_and_their_floor(case: str, tmp_path: Path) -> None:
    words = ["--only", case, *TINY, "--directory", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "bench", *words], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    for figure in FIGURES[case]:
        assert figure in done.stdout
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_every_case_stands_in_the_table_of_what_is_measured() -> None:
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    told = text[text.index("## Speed") :].split("\n## ", 1)[0]
    assert re.findall(r"^\| `(\w+)` \|", told, re.MULTILINE) == list(CASES)
