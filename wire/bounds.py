"""What is allowed at most and how things may be called: what the language and the coordinator both hold to."""

from __future__ import annotations

import re
from typing import Final

MAX_NAME: Final = 48
NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,47}\Z")
"""Pools, jobs, tasks, and resources that nodes declare."""

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

TAKEN_TASK_NAMES: Final = frozenset({"dirs", "home", "tmp", "jobpreparation", "jobrelease", "private", "trash"})
"""Names that stand beside the tasks' directories on a node."""

STEERING_PREFIXES: Final = (
    "LD_", "DYLD_", "_RLD", "GCONV_", "GLIBC_", "MALLOC_", "NIS_", "KRB5_", "OPENSSL_", "BASH_", "PYTHON", "PERL",
    "RUBY", "GEM_", "BUNDLE_", "LUA_", "NODE_", "NPM_", "DOTNET_", "CORECLR_", "COMPlus_", "JULIA_", "GUILE_", "TCL",
    "R_", "GIT_", "XDG_", "MAKE", "LESS", "ZDOTDIR", "TERMINFO",
)  # fmt: skip
STEERING_VARIABLES: Final = frozenset(
    {
        "PATH", "HOME", "TMPDIR", "IFS", "ENV", "CDPATH", "FPATH", "GLOBIGNORE", "SHELLOPTS", "BASHOPTS", "PS4",
        "PROMPT_COMMAND", "POSIXLY_CORRECT", "SHELL", "EDITOR", "VISUAL", "PAGER", "MANPAGER", "BROWSER",
        "GETCONF_DIR", "HOSTALIASES", "LOCALDOMAIN", "LOCPATH", "NLSPATH", "PATH_LOCALE", "RESOLV_HOST_CONF",
        "RES_OPTIONS", "TZDIR", "TERMCAP", "TERMPATH", "SHLIB_PATH", "LIBPATH", "CLASSPATH", "JAVA_TOOL_OPTIONS",
        "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CAML_LD_LIBRARY_PATH", "OCAMLRUNPARAM", "PHPRC", "PHP_INI_SCAN_DIR",
        "EMACSLOADPATH", "VIMINIT", "EXINIT", "MFLAGS", "CUDA_INJECTION32_PATH", "CUDA_INJECTION64_PATH",
    }
)  # fmt: skip


def steers(name: str) -> bool:
    """Whether an environment variable of this name tells loaders, shells or interpreters what else to load or run.

    None of these reaches an elevated command from a file: its own `env` may not hold one, and those of its job's `env`
    are left out."""
    return name in STEERING_VARIABLES or name.startswith(STEERING_PREFIXES)


SHA256: Final = re.compile(r"[0-9a-f]{64}\Z")

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
MAX_PAIRED: Final = 100
"""Elements of one `after` that pair tasks by value: each may cost a task some bytes."""

MAX_DIRS: Final = 100
MAX_ARMS: Final = 100
MAX_ENVIRONMENT: Final = 1_000
MAX_FILES: Final = 100
"""Files that one command brings in."""

MAX_FILE_PATH: Final = 512
MAX_FILE_NAME: Final = 255
MAX_FILE_DEPTH: Final = 16
MAX_FILE_TEXT: Final = 96 * 1024
"""Bytes of a file whose text stands in the document: it reaches the node's process as a variable."""

MAX_FILE_TEXTS: Final = 512 * 1024
"""Of all of them in one command."""

MAX_FILE_BYTES: Final = 256 * 1024 * 1024
"""Of a file that lay beside the submitted one; a coordinator may take less."""

MAX_JOB_FILE_BYTES: Final = 1024 * 1024 * 1024
"""Of all those of one job: so much of a node's disk they take beside the work directories."""

MAX_URL: Final = 4_096

MAX_DURATION_MS: Final = 3_660 * 24 * 3_600_000
MAX_NODES: Final = 10_000
MAX_SLOTS: Final = 4_096
MAX_RETRIES: Final = 1_000_000
MAX_PRIORITY: Final = 1_000
MIN_CPUS: Final = 0.01
"""Less is no share that a kernel could keep to."""

MAX_CPUS: Final = 65_536
MIN_MEMORY: Final = 1024 * 1024
"""Less is not enough for any command to begin."""

MAX_MEMORY: Final = 2**50
MAX_DISK: Final = 2**50
MAX_GPUS: Final = 1_024
MIN_AMOUNT: Final = 0.001
"""Of a resource that nodes declare: it is counted in thousandths."""

MAX_AMOUNT: Final = 2**50
MAX_RESOURCES: Final = 32
"""Of one node or task, beside those that have names in the language; and so many labels."""

LABEL_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\Z")
MAX_LABEL_VALUE: Final = 255


def is_label(text: str) -> bool:
    """Whether this is a label as it is asked for: `name` or `name=value`."""
    name, _, value = text.partition("=")
    return LABEL_NAME.match(name) is not None and is_label_value(value)


def is_label_value(value: str) -> bool:
    """Whether a label may have this value: it is shown to people."""
    return len(value) <= MAX_LABEL_VALUE and value.isprintable()


MIN_LOST_AFTER_MS: Final = 1_000

TERM: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,39}")
"""What a terminal may be called."""
MAX_TERMINAL: Final = 2000
"""Columns, and rows, of a terminal."""
