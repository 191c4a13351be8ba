"""Who reads the stream of events: a request asks the shell for a page of rows, tells what of them may be told, and
waits for the next commit where that is nothing. A slow reader holds nothing but its place: the log is its queue.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from coordinator import access, chronicle
from coordinator.chronicle import PLACES, Plain
from coordinator.desk import Desk
from coordinator.events import PageAsked, PageRead, Stored
from coordinator.finding import RefusedError, find_job
from coordinator.records import (
    DebtPaid,
    JobDeleted,
    JobSubmitted,
    Record,
    decode,
    is_of_a_job,
    is_of_an_identity,
    scope_of,
)
from coordinator.sessions import Reader, Session
from coordinator.views import time_text
from wire import messages as m
from wire.codec import encode_value

PAGE: Final = 250
"""Events of one answer at most: to tell more would hold the loop for longer than a commit does."""
PAGE_BYTES: Final = 200 * 1024
MAX_READERS: Final = 1_000
"""Requests for events under way at once."""
MAX_READERS_EACH: Final = 4
"""Of one connection."""


def read(desk: Desk, session: Session, message: m.EventsRead) -> None:
    """Answer EventsRead with the events after `since`, now or when there is one."""
    job = None if message.job is None else find_job(desk, session, message.job).id
    if sum(reader.session == session.epoch for reader in desk.readers.values()) >= MAX_READERS_EACH:
        text = f"{MAX_READERS_EACH} requests of this connection read events already: let one be answered first"
        raise RefusedError(m.RefusalCode.REFUSED, text)
    if len(desk.readers) >= MAX_READERS:
        raise RefusedError(m.RefusalCode.REFUSED, f"{MAX_READERS} read events just now: try again")
    desk.last_reader += 1
    since = max(0, message.since)
    desk.readers[desk.last_reader] = Reader(session.epoch, message.request, job, since, message.wait)
    _ask(desk, desk.last_reader)


def wake(desk: Desk) -> None:
    """Something is about to be durable: whoever waits for its like reads again, once it is."""
    waiting = [(number, reader) for number, reader in desk.readers.items() if reader.waiting]
    if not waiting:
        return
    jobs = {getattr(record, "job", None) for record in desk.ready.records}
    alike: dict[tuple[str, int], Record] = {}  # a batch may hold thousands of one job: one stands for them
    for record in desk.ready.records:
        alike[scope_of(record), id(record) if isinstance(record, JobDeleted | DebtPaid) else 0] = record
    for number, reader in waiting:
        if reader.job in jobs if reader.job is not None else _concerns(desk, reader, alike.values()):
            _ask(desk, number)


def owner_of(desk: Desk, page: PageRead) -> str | None:
    """Who asked for the page, if anybody still waits for it."""
    reader = desk.readers.get(page.reader)
    return None if reader is None else desk.sessions[reader.session].owner


def take_page(desk: Desk, page: PageRead) -> None:
    """Rows came: tell them, go on reading, or wait."""
    reader = desk.readers.get(page.reader)
    if reader is None:
        return  # its session is over
    session = desk.sessions[reader.session]
    if page.failed is not None or reader.since // PLACES > page.last:
        del desk.readers[page.reader]
        code = m.RefusalCode.INVALID if page.failed is None else m.RefusalCode.FAILED
        desk.refuse(reader.session, reader.request, code, page.failed or _from_elsewhere(reader.since))
        return
    told: list[Plain] = []
    size = 0
    for event in _told(desk, session, reader, page):
        told.append(event)
        reader.since = event["id"]
        size += len(encode_value(event))
        if len(told) >= PAGE or size >= PAGE_BYTES:
            _answer(desk, page.reader, told, end=False)
            return
    end = page.end and reader.recorded == desk.recorded
    if told or (end and not (reader.wait and _may_come(desk, reader))):
        _answer(desk, page.reader, told, end=end)
    elif end:
        reader.waiting = True
    else:
        _ask(desk, page.reader)


def _from_elsewhere(since: int) -> str:
    return f"no event {since} has happened here: it is another coordinator's, or one of a copy that was put back"


def _may_come(desk: Desk, reader: Reader) -> bool:
    """Whether there can be an event for the reader yet: of a deleted job there is none."""
    return reader.job is None or reader.job in desk.cluster.jobs


def _ask(desk: Desk, number: int) -> None:
    reader = desk.readers[number]
    reader.waiting, reader.recorded = False, desk.recorded
    desk.ready.pages.append(PageAsked(number, (reader.since + 1) // PLACES, reader.job))


def _answer(desk: Desk, number: int, told: list[Plain], *, end: bool) -> None:
    reader = desk.readers.pop(number)
    desk.reply(reader.session, reader.request, {"events": told, "next": reader.since, "end": end})


def _told(desk: Desk, session: Session, reader: Reader, page: PageRead) -> Iterator[Plain]:
    """The page's events after `reader.since`, which moves on over what is not for this reader."""
    for row in page.rows:
        if reader.job is None and (missing := _missing_before(reader.since, row.number)):
            yield missing
        if _is_forgotten(desk, row.scope):
            return  # it goes with the commit that is under way: the next page has the gap
        start = reader.since % PLACES + 1 if reader.since // PLACES == row.number else 0
        if _may_know(desk, session, row.scope):
            yield from _events_of(desk, session, reader, row, start)
        reader.since = chronicle.id_of(row.number, PLACES - 1)


def _missing_before(since: int, row: int) -> Plain | None:
    """The gap between what was told and this row, if there is one."""
    told_up_to, place = divmod(since, PLACES)
    if row <= told_up_to + (place == PLACES - 1 or told_up_to == 0):
        return None
    return chronicle.gap(max(since + 1, PLACES), chronicle.id_of(row, 0) - 1)


def _events_of(desk: Desk, session: Session, reader: Reader, row: Stored, start: int) -> Iterator[Plain]:
    job = desk.cluster.jobs.get(row.scope)
    if row.body is not None:
        record = decode(row.body)
    elif job is not None:  # the one kind of row that is not brought: it may be huge, and all of it stands here
        record = JobSubmitted(job.id, job.number, job.submission, job.owner, job.spec, job.source, job.submitted_at)
    else:
        return
    if reader.job not in (None, getattr(record, "job", None)) or not _may_know_record(desk, session, record):
        return
    at = getattr(record, "at", None)
    time = None if at is None else time_text(at.wall)
    for event in chronicle.happenings(record, job, start):
        yield event.plain(row.number, time)


# ---- for whom


def _concerns(desk: Desk, reader: Reader, some: Iterable[Record]) -> bool:
    session = desk.sessions[reader.session]
    return any(_may_know(desk, session, scope_of(each)) and _may_know_record(desk, session, each) for each in some)


def _is_forgotten(desk: Desk, scope: str) -> bool:
    return is_of_a_job(scope) and scope not in desk.cluster.jobs


def _may_know(desk: Desk, session: Session, scope: str) -> bool:
    """Rows of jobs are for those who may look at the job, of tokens and keys for admins; nodes and pools are shown to
    everybody."""
    if is_of_an_identity(scope):
        return session.role is m.Role.ADMIN
    job = desk.cluster.jobs.get(scope)
    return access.may_look(desk, session, job) if job is not None else not is_of_a_job(scope)


def _may_know_record(desk: Desk, session: Session, record: Record) -> bool:
    """What outlives a job is for those who could look at it, as far as that is still known."""
    match record:
        case JobDeleted():
            return session.owner == record.owner or desk.policy.may_look(session.owner, session.role, record.pool)
        case DebtPaid():
            return access.may_operate(desk, session, desk.cluster.nodes[record.node].pool.name)
        case _:
            return True
