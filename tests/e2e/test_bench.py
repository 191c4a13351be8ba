"""The benchmarks run, with numbers too small to mean anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_the_benchmarks_print_every_ratio_with_its_floor(tmp_path: Path) -> None:
    words = ["--tasks", "12", "--many", "1000", "--repeat", "1", "--directory", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "bench", *words], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    for line in ("spawn floor", "of the floor", "1,000 to 10", "bytes a queued task"):
        assert line in done.stdout
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"
