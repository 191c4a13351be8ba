"""What the core asks for a job's sake on disk and among processes, done: each chore is answered by an event.

Everything here blocks: call it in a thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, assert_never

from agentd import events
from agentd.containment import Containment, ContainmentError
from agentd.events import Chore, Event
from agentd.files import Cleaned, FilesError, NodeFiles
from agentd.uids import Uids, UidsError
from wire.messages import Cleanliness


class Chores:
    """`uids` is None where jobs run as the agent's user. Invariant: a job has its user from before its directories are
    made until nothing of it is left."""

    def __init__(
        self, files: NodeFiles, containment: Containment, uids: Uids | None, wall: Callable[[], float], log: Any
    ) -> None:
        self._files = files
        self._containment = containment
        self._uids = uids
        self._wall = wall
        self._log = log

    def done(self, chore: Chore) -> Event | None:
        """The answer, or None when the chore is to be tried again."""
        match chore:
            case events.EmptyJob():
                return self._empty(chore.job)
            case events.MakeJob():
                return self._make(chore)
            case events.CleanJob():
                return self._clean(chore)
            case events.ReadTails():
                tails = [self._files.tail(f"workitems/{chore.directory}/{name}.txt") for name in ("stdout", "stderr")]
                return events.TailsRead(chore.keeper, chore.key, *tails)
            case _ as unreachable:
                assert_never(unreachable)

    def _make(self, chore: events.MakeJob) -> Event:
        try:
            user = None if self._uids is None else self._uids.lease(chore.job)
            self._files.make_job(
                chore.job, chore.dirs, chore.scripts, chore.discard, chore.fresh, user=user, elevated=chore.elevated
            )
        except (FilesError, UidsError, OSError) as error:
            self._log.error("a job's directory could not be made", job=chore.job, reason=str(error))
            return events.JobDirectoryMade(chore.job, str(error))
        return events.JobDirectoryMade(chore.job)

    def _empty(self, job: str) -> Event | None:
        try:
            survivors = self._containment.kill_job(job)
        except (ContainmentError, OSError) as error:
            self._log.error("a job's processes can't be killed", job=job, reason=str(error))
            return None
        if survivors:
            self._log.error("a job's processes can't be killed", job=job, survivors=survivors)
            return None
        return events.JobEmptied(job)

    def _clean(self, chore: events.CleanJob) -> Event:
        try:
            cleaned = self._files.clean_job(chore.job, chore.keep_s, self._wall())
        except (FilesError, OSError) as error:
            cleaned = Cleaned([str(error)], None)
        for leftover in cleaned.leftovers:
            self._log.error("not removed", job=chore.job, reason=leftover)
        clean = Cleanliness(files=list(cleaned.leftovers))
        return events.JobCleaned(chore.job, tuple(cleaned.leftovers), cleaned.kept_s, clean)
