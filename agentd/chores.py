"""What the core asks for a job's sake on disk and among processes, done: each chore is answered by an event.

A job's user is leased before its directories are made, and free again when the clean-up found nothing more of it; until
then it is quarantined and looked at again. Everything here blocks: call it in a thread.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection
from typing import Any, Final, assert_never

import msgspec

from agentd import events
from agentd.beneath import FilesError
from agentd.cleaning import Cleaning
from agentd.containment import Containment
from agentd.events import Chore, Event
from agentd.files import NodeFiles
from agentd.processes import ContainmentError, now_s
from agentd.reading import Owners
from agentd.uids import Lease, Uids, UidsError
from wire.messages import NOTHING_WRITTEN, START_JOB, Cleanliness, KeptStream, TaskOutput

OUTPUT_BYTES: Final = 256 * 1024
"""Of outputs in one message, before the last one."""
AGAIN_S: Final = 60.0
"""Until what could not be looked at is looked at again."""
LOOK_STEPS: Final = 500
"""So many entries are deleted or looked at for one quarantined user before others have their turn."""
PATIENCE_S: Final = 2.0
"""So long the end of a job's release waits for its files to be deleted, so that what can't be is told with it."""
NOTHING: Final = Cleanliness()
_DISK_ERRORS: Final = (FilesError, UidsError, ContainmentError, OSError)


class Chores:
    """`uids` is None where jobs run as the agent's user. Invariants: a job has its user from before its directories are
    made until it is cleaned up; in `_cleanings` are clean-ups of quarantined users that have more to do."""

    def __init__(
        self,
        files: NodeFiles,
        containment: Containment,
        uids: Uids | None,
        wall: Callable[[], float],
        log: Any,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._files = files
        self._containment = containment
        self._uids = uids
        self._wall = wall
        self._log = log
        self._patience_s = patience_s
        self._cleanings: dict[int, Cleaning] = {}
        self._looking = threading.Lock()
        """Held while what is left of jobs is looked at, so that none comes back under it."""

    def restarted(self, jobs: Collection[str]) -> None:
        """The journal knows of these jobs: users of others are to be looked at."""
        if self._uids is None:
            return
        for lease in self._uids.leases():
            if lease.reason is None and lease.job not in jobs:
                self._uids.quarantine(lease.uid, "Its job is not known here any more.")

    def done(self, chore: Chore) -> Event | None:
        """The answer, or None when the chore is to be tried again."""
        match chore:
            case events.EmptyJob():
                return self._empty(chore.job)
            case events.MakeJob():
                return self._make(chore)
            case events.MakeStart():
                return self._make_start(chore)
            case events.CleanJob():
                return self._clean(chore)
            case events.TakePiece():
                return self._take_piece(chore)
            case events.ReadOutputs():
                return self._read_outputs(chore)
            case events.FindOverdue():
                return self._overdue(chore)
            case events.DiscardTasks():
                return self._discard(chore)
            case events.ReadTails():
                owners = self.owners(chore.directory)
                tails = [
                    self._files.tail(f"{chore.directory}/{name}.txt", owners=owners) for name in ("stdout", "stderr")
                ]
                return events.TailsRead(chore.keeper, chore.key, *tails)
            case _ as unreachable:
                assert_never(unreachable)

    def owners(self, path: str) -> Owners | None:
        """Whose files may be read at this path below the root, beside the agent's: in a job's tree its own, elsewhere
        any job's; None: anybody's. A name for another's file is easily made where everybody may make names."""
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if self._uids is None:
            return None
        if parts[:1] != ["workitems"]:
            return self._uids.is_jobs
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

    def _make_start(self, chore: events.MakeStart) -> Event:
        try:
            user = self._lease(START_JOB)
            self._files.make_start(chore.directory, chore.scripts, user=user, elevated=chore.elevated)
        except _DISK_ERRORS as error:
            self._log.error("the start's directory could not be made", reason=str(error))
            return events.JobDirectoryMade(START_JOB, str(error))
        return events.JobDirectoryMade(START_JOB)

    def _take_piece(self, chore: events.TakePiece) -> Event:
        reader = None if chore.closed or self._uids is None else self._uids.of(chore.job)
        try:
            taken = self._files.held.take(
                chore.job, chore.digest, chore.size, chore.offset, chore.content, path=chore.path, reader=reader
            )
        except FilesError as error:
            self._log.error("a file of a job could not be taken", job=chore.job, reason=str(error))
            return events.PieceTaken(chore.job, chore.digest, chore.turn, failure=str(error))
        return events.PieceTaken(chore.job, chore.digest, chore.turn, taken.held, taken.whole)

    def _lease(self, job: str) -> int | None:
        if self._uids is None:
            return None
        with self._looking:
            return self._uids.lease(job)

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

    # ---- what its tasks leave, while it lives

    def _read_outputs(self, chore: events.ReadOutputs) -> Event:
        """As many as fit a message."""
        outputs: list[TaskOutput] = []
        taken = size = 0
        for row in chore.rows:
            head, tail = (0, chore.success) if row.succeeded else (chore.head, chore.tail)
            owners = self.owners(f"workitems/{row.directory}")
            streams = [
                self._files.ends(f"workitems/{row.directory}/{name}.txt", head, tail, owners)
                for name in ("stdout", "stderr")
            ]
            taken += 1
            if any(stream is not None for stream in streams):
                out, err = (NOTHING_WRITTEN if stream is None else KeptStream(*stream) for stream in streams)
                outputs.append(TaskOutput(row.job, row.group, row.index, row.attempt, out, err))
                size += sum(len(stream.head) + len(stream.tail) for stream in (out, err))
            if size >= OUTPUT_BYTES:
                break
        return events.OutputsRead(chore.turn, outputs, taken)

    def _overdue(self, chore: events.FindOverdue) -> Event:
        try:
            found = self._files.overdue(chore.job, chore.keep_s, self._wall(), chore.limit)
        except _DISK_ERRORS as error:
            self._log.error("a job's directories can't be looked at", job=chore.job, reason=str(error))
            return events.OverdueFound(chore.job, [], AGAIN_S)
        return events.OverdueFound(chore.job, *found)

    def _discard(self, chore: events.DiscardTasks) -> Event:
        try:
            self._files.discard_tasks(chore.job, chore.names)
        except _DISK_ERRORS as error:
            self._log.error("directories of tasks can't be removed", job=chore.job, reason=str(error))
        return events.TasksDiscarded(chore.job)

    # ---- a job goes

    def _clean(self, chore: events.CleanJob) -> Event:
        kept_s: float | None = None
        user: int | None = None
        try:
            user = self._user_of(chore.job)
            kept_s, clean = self._cleaned(chore, user)
        except _DISK_ERRORS as error:
            clean = Cleanliness(files=[str(error)], uid=user)
        if kept_s is None and user is not None:
            clean = self._let_go(user, clean)
        clean = _found(clean)
        if clean != NOTHING:
            self._log.warning("something of a job is left", job=chore.job, **msgspec.structs.asdict(clean))
        return events.JobCleaned(chore.job, kept_s=kept_s, clean=clean)

    def _cleaned(self, chore: events.CleanJob, user: int | None) -> tuple[float | None, Cleanliness]:
        """When what is kept is due, if something is, and what is left. A large tree goes on being deleted after it."""
        cleaning = Cleaning(self._files, self._containment, chore.job, user)
        with contextlib.closing(cleaning):
            cleaning.begin(chore.keep_s, self._wall())
            until = now_s() + self._patience_s
            while cleaning.step(LOOK_STEPS) and now_s() < until:
                pass
            return cleaning.kept_s, cleaning.account()

    def _user_of(self, job: str) -> int | None:
        """Also one that was quarantined just before we died, or by an earlier clean-up. Raises UidsError."""
        if self._uids is None:
            return None
        found = self._uids.of(job)
        return found or next((lease.uid for lease in reversed(self._uids.leases()) if lease.job == job), None)

    def _let_go(self, user: int, clean: Cleanliness) -> Cleanliness:
        """Its job is over here: the user is free, or quarantined; what is to be told of it."""
        assert self._uids is not None, "a user was leased"
        try:
            if clean == NOTHING:
                self._uids.release(user)
            else:
                self._uids.quarantine(user, _what_is_left(clean))
        except UidsError as error:  # then it stays the job's
            self._log.error("a user could not be freed", user=user, reason=str(error))
            return msgspec.structs.replace(clean, uid=user, files=[*clean.files, f"Its user was not freed: {error}"])
        return clean

    # ---- what could not be freed at once

    def look_again(self) -> bool:
        """Go on with clean-ups that left something, also those of an earlier life, and free users of which nothing is
        left now. Whether there is more that can be done at once."""
        if self._uids is None:
            return False
        try:
            waiting = [lease for lease in self._uids.leases() if lease.reason is not None]
            more = [self._look_at(self._uids, lease) for lease in waiting]
            return any(more)
        except UidsError as error:
            self._log.error("quarantined users can't be looked at", reason=str(error))
            return False

    def _look_at(self, uids: Uids, lease: Lease) -> bool:
        with self._looking:
            if uids.of(lease.job) is not None:
                return False  # the job is back as another user: what is in its place now is not of this one
            try:
                cleaning = self._cleanings.get(lease.uid)
                if cleaning is None:
                    cleaning = Cleaning(self._files, self._containment, lease.job, lease.uid)
                    cleaning.begin({}, self._wall())
                    self._cleanings[lease.uid] = cleaning
                more = cleaning.step(LOOK_STEPS)
                clean = cleaning.account()
                if not more:
                    del self._cleanings[lease.uid]  # looked at from the start next time
                    cleaning.close()
                    self._let_go(lease.uid, clean)
            except _DISK_ERRORS as error:
                self._log.error("a quarantined user can't be looked at", user=lease.uid, reason=str(error))
                return False
            return more


def _found(clean: Cleanliness) -> Cleanliness:
    """A user that is not free for the sake of what is kept, or of what is being deleted, is nothing that was left."""
    rest = msgspec.structs.replace(clean, uid=None)
    return rest if rest == NOTHING else clean


def _what_is_left(clean: Cleanliness) -> str:
    """For the lease, and so for people."""
    if clean.processes:
        return f"{clean.processes} of its processes are alive."
    left = (*clean.files, *clean.mounts, *clean.cgroups)
    return left[0] if left else "It is still being deleted."
