"""The clean-up after a job on its node, and the account of what is left of it: nothing, or which.

Everything here blocks, but for no longer than its steps: call it in a thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from agentd.containment import Containment
from agentd.files import Cleaned, NodeFiles
from agentd.ipc import public_files, remove_ipc
from agentd.shared import Takeover
from agentd.spawn import remove_keys
from wire.messages import Cleanliness

LOOKS_A_STEP: Final = 20
"""To look at an entry of `shared/` costs that much less than to delete one."""
LINES: Final = 20
LINE_CHARS: Final = 400


class Cleaning:
    """Of one job whose processes were killed: moves what is its to the trash, deletes that, takes over what its user
    (`uid`, None without) left in `shared/`. In order: `begin`, `step` while there is more, `account`."""

    def __init__(self, files: NodeFiles, containment: Containment, job: str, uid: int | None = None) -> None:
        self._files = files
        self._containment = containment
        self._job = job
        self._uid = uid
        self._cleaned = Cleaned([], None)
        self._takeover: Takeover | None = None
        self._more = True

    @property
    def kept_s(self) -> float | None:
        """What is kept for a while is due in so many seconds: then begin again. None: nothing is."""
        return self._cleaned.kept_s

    def begin(self, keep_s: Mapping[str, float], now: float) -> None:
        """`keep_s` as of `NodeFiles.clean_job`. Raises FilesError, OSError."""
        self.close()
        self._cleaned = self._files.clean_job(self._job, keep_s, now)
        self._files.trash.retry(self._job)
        if self._uid is not None:
            self._takeover = Takeover(self._files.shared, self._uid)
        self._more = True

    def step(self, steps: int) -> bool:
        """Whether there is more to do. Raises OSError."""
        more = self._files.trash.empty(steps, self._job)
        if self._takeover is not None:
            more = self._takeover.step(LOOKS_A_STEP * steps) or more
        self._more = more
        return more

    def account(self) -> Cleanliness:
        """What is left of the job as far as is known; `uid` is set while its user may not be another job's."""
        left = self._containment.left(self._job, self._uid)
        mounts = self._cleaned.mounts
        files = [*self._cleaned.leftovers, *self._files.trash.leftovers(self._job)]
        if self._takeover is not None:
            files += self._takeover.left
        if self._uid is not None:
            files += [*remove_ipc(self._uid), *public_files(self._uid), *remove_keys(self._uid)]
        waits = self._more or self._cleaned.kept_s is not None or self._files.trash.holds(self._job)
        held = waits or left.processes or left.cgroups or files or mounts
        uid = self._uid if held else None
        return Cleanliness(left.processes, _bounded(files), uid, _bounded(left.cgroups), _bounded(mounts))

    def close(self) -> None:
        """Let go of what is held open."""
        if self._takeover is not None:
            self._takeover.close()
            self._takeover = None


def _bounded(lines: list[str]) -> list[str]:
    """What a job can make long, as long as a report should be."""
    short = [
        line if len(line) <= LINE_CHARS else f"{line[: LINE_CHARS // 2]} … {line[-LINE_CHARS // 2 :]}"
        for line in lines[:LINES]
    ]
    return short if len(lines) <= LINES else [*short, f"{len(lines) - LINES} more."]
