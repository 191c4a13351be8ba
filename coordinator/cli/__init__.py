"""The `coordinator` command. Nothing of ours is imported here: a short command pays only for what it uses."""

from __future__ import annotations

import gc


def main() -> None:
    """Run one command and leave with its exit status; an interrupt at any moment, even while importing, is quiet."""
    try:
        from coordinator.cli.entry import run_command

        status = run_command()
    except KeyboardInterrupt:
        status = 130
    gc.freeze()  # the interpreter's last collections would look at all that is loaded once more, and gain nothing
    raise SystemExit(status)
