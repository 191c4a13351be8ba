"""What the core asks for a job's sake on disk and among processes, done: each chore is answered by an event.

A job's user is leased before its directories are made, and free again when the clean-up found nothing more of it; until
then it is quarantined and looked at again. Everything here blocks: call it in a thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final, assert_never

import msgspec

from agentd import events
from agentd.cleaning import Cleaning, clean_up
from agentd.containment import Containment, ContainmentError
from agentd.events import Chore, Event
from agentd.files import FilesError, NodeFiles
from agentd.reading import Owners
from agentd.uids import Uids, UidsError
from wire.messages import Cleanliness

LOOK_STEPS: Final = 500
"""So many entries are deleted or looked at for one quarantined user before others have their turn."""
NOTHING: Final = Cleanliness()
_DISK_ERRORS: Final = (FilesError, UidsError, ContainmentError, OSError)


class Chores:
    """`uids` is None where jobs run as the agent's user. Invariant: a job has its user from before its directories are
    made until nothing of it is left; a clean-up is in `_cleanings` only while the job has nothing on this node."""

    def __init__(
        self, files: NodeFiles, containment: Containment, uids: Uids | None, wall: Callable[[], float], log: Any
    ) -> None:
        self._files = files
        self._containment = containment
        self._uids = uids
        self._wall = wall
        self._log = log
        self._cleanings: dict[str, Cleaning] = {}
        self._looking = threading.Lock()
        """Held while a clean-up goes on, so that the job does not come back under it."""

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
                owners = self.owners(f"workitems/{chore.directory}")
                tails = [
                    self._files.tail(f"workitems/{chore.directory}/{name}.txt", owners=owners)
                    for name in ("stdout", "stderr")
                ]
                return events.TailsRead(chore.keeper, chore.key, *tails)
            case _ as unreachable:
                assert_never(unreachable)

    def owners(self, path: str) -> Owners | None:
        """Whose files may be read at this path below the root: of a job's tree its own and the agent's; None:
        anybody's."""
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if self._uids is None or parts[:1] != ["workitems"]:
            return None
        user = self._uids.of(parts[1]) if len(parts) > 1 else None
        return lambda uid: uid == user

    # ---- a job comes

    def _make(self, chore: events.MakeJob) -> Event:
        try:
            self._files.make_job(
                chore.job, chore.dirs, chore.scripts, chore.discard, chore.fresh, user=self._lease(chore.job),
                elevated=chore.elevated,
            )  # fmt: skip
        except _DISK_ERRORS as error:
            self._log.error("a job's directory could not be made", job=chore.job, reason=str(error))
            return events.JobDirectoryMade(chore.job, str(error))
        return events.JobDirectoryMade(chore.job)

    def _lease(self, job: str) -> int | None:
        with self._looking:
            self._drop(job)
            return None if self._uids is None else self._uids.lease(job)

    def _empty(self, job: str) -> Event | None:
        try:
            survivors = self._containment.kill_job(job, None if self._uids is None else self._uids.of(job))
        except (ContainmentError, OSError) as error:
            self._log.error("a job's processes can't be killed", job=job, reason=str(error))
            return None
        if survivors:
            self._log.error("a job's processes can't be killed", job=job, survivors=survivors)
            return None
        return events.JobEmptied(job)

    # ---- a job goes

    def _clean(self, chore: events.CleanJob) -> Event:
        job = chore.job
        with self._looking:
            self._drop(job)
        user = None if self._uids is None else self._uids.of(job)
        try:
            cleaning, clean = clean_up(self._files, self._containment, job, user, chore.keep_s, self._wall())
        except _DISK_ERRORS as error:
            self._log.error("a job could not be cleaned up", job=job, reason=str(error))
            clean = Cleanliness(files=[str(error)], uid=user)
            self._quarantine(job, clean)
            return events.JobCleaned(job, clean=clean)
        if cleaning.kept_s is not None:
            cleaning.close()
            clean = _but_what_is_kept(clean)
        elif clean == NOTHING:
            cleaning.close()
            self._free(job)
        else:
            with self._looking:
                self._cleanings[job] = cleaning
            self._quarantine(job, clean)
        if clean != NOTHING:
            self._log.warning("something of a job is left", job=job, **msgspec.structs.asdict(clean))
        return events.JobCleaned(job, kept_s=cleaning.kept_s, clean=clean)

    def _drop(self, job: str) -> None:
        cleaning = self._cleanings.pop(job, None)
        if cleaning is not None:
            cleaning.close()

    def _quarantine(self, job: str, clean: Cleanliness) -> None:
        if self._uids is None:
            return
        try:
            self._uids.quarantine(job, _what_is_left(clean))
        except UidsError as error:  # it stays the job's all the same
            self._log.error("a user could not be quarantined", job=job, reason=str(error))

    def _free(self, job: str) -> None:
        if self._uids is None:
            return
        try:
            self._uids.release(job)
        except UidsError as error:
            self._log.error("a user could not be freed", job=job, reason=str(error))

    # ---- what could not be freed at once

    def look_again(self) -> bool:
        """Go on with clean-ups that left something, also those of an earlier life, and free users of which nothing is
        left now. Whether there is more that can be done at once."""
        more = False
        if self._uids is None:
            with self._looking:
                for job in list(self._cleanings):
                    self._drop(job)  # without users there is nothing to free; the trash is emptied anyway
            return False
        try:
            waiting = [lease.job for lease in self._uids.leases() if lease.reason is not None]
        except UidsError as error:
            self._log.error("quarantined users can't be looked at", reason=str(error))
            return False
        for job in waiting:
            more = self._look_at(self._uids, job) or more
        return more

    def _look_at(self, uids: Uids, job: str) -> bool:
        with self._looking:
            user = uids.of(job)
            if user is None or job not in {lease.job for lease in uids.leases() if lease.reason is not None}:
                return False  # freed, or the job is back
            try:
                cleaning = self._cleanings.get(job)
                if cleaning is None:
                    cleaning = self._cleanings[job] = Cleaning(self._files, self._containment, job, user)
                    cleaning.begin({}, self._wall())
                more = cleaning.step(LOOK_STEPS)
                clean = cleaning.account()
                if clean == NOTHING:
                    self._drop(job)
                    uids.release(job)
                elif not more:
                    self._drop(job)  # looked at from the start next time
                    uids.quarantine(job, _what_is_left(clean))
            except _DISK_ERRORS as error:
                self._log.error("a quarantined user can't be looked at", job=job, reason=str(error))
                self._drop(job)
                return False
            return more


def _but_what_is_kept(clean: Cleanliness) -> Cleanliness:
    """A user that is the job's for the sake of what is kept as it was asked for is nothing that was left."""
    rest = msgspec.structs.replace(clean, uid=None)
    return rest if rest == NOTHING else clean


def _what_is_left(clean: Cleanliness) -> str:
    """For the lease, and so for people."""
    if clean.processes:
        return f"{clean.processes} of its processes are alive."
    left = (*clean.files, *clean.mounts, *clean.cgroups)
    return left[0] if left else "It is still being deleted."
