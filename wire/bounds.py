"""What is allowed at most and how things may be called: what the language and the coordinator both hold to."""

from __future__ import annotations

import re
from typing import Final

MAX_NAME: Final = 48
NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,47}\Z")
"""Pools, jobs and tasks."""

VARIABLE: Final = re.compile(r"[a-z][a-z0-9_]{0,47}\Z")
"""Params, lets, sweep variables and dirs: lowercase, so they collide with no variable of the system."""

ENVIRONMENT_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
SYSTEM_PREFIXES: Final = ("BATCH_", "AZ_BATCH_")

TAKEN_VARIABLES: Final = frozenset(
    {
        "http_proxy", "https_proxy", "ftp_proxy", "rsync_proxy", "socks_proxy", "all_proxy", "no_proxy",
        "auto_resume", "histchars",
    }
)  # fmt: skip
"""Lowercase names that common tools read from the environment."""

TAKEN_TASK_NAMES: Final = frozenset({"dirs", "home", "tmp", "jobpreparation", "jobrelease", "trash"})
"""Names that stand beside the tasks' directories on a node."""

MAX_INT: Final = 2**63 - 1
MAX_TASKS: Final = 100_000_000
"""Tasks in one group, and in one job."""

MAX_AXES: Final = 16
MAX_AXIS_VALUES: Final = 1_000_000
"""Listed values on one axis; a range is not listed."""

MAX_ARGUMENTS: Final = 1_000
MAX_ARGUMENT_BYTES: Final = 128 * 1024 - 1
"""One argument, or one `NAME=value`, as the kernel takes it (its end mark not counted)."""

MAX_SCRIPT_BYTES: Final = 1024 * 1024
MAX_POOLS: Final = 1_000
MAX_JOBS: Final = 1_000
MAX_GROUPS: Final = 1_000
MAX_AFTER: Final = 1_000
MAX_DIRS: Final = 100
MAX_ENVIRONMENT: Final = 1_000

MAX_DURATION_MS: Final = 3_660 * 24 * 3_600_000
MAX_NODES: Final = 10_000
MAX_SLOTS: Final = 4_096
MAX_RETRIES: Final = 1_000_000
MAX_PRIORITY: Final = 1_000
MIN_LOST_AFTER_MS: Final = 1_000
