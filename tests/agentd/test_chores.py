"""A job's user from the making of its directories to the last of what is left: on a real disk, with real leases."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agentd import events
from agentd.chores import LOOK_STEPS, NOTHING, Chores
from agentd.containment import Containment
from agentd.files import NodeFiles
from agentd.uids import Range, Uids
from tests.agentd.ground import NOW
from wire.log import daemon_log
from wire.messages import NOTHING_WRITTEN, Cleanliness, KeptStream

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives jobs users of their own")

FIRST = 1_879_200_000


@dataclass
class Ground:
    """A node's root and its leases, and agents that come and go."""

    place: Path
    files: NodeFiles
    count: int = 100
    leases: Path = Path()
    patience_s: float = 60.0

    def __post_init__(self) -> None:
        self.leases = self.place / "uids" / "leases.json"
        self.start()

    def start(self, *jobs: str) -> None:
        """Another life of the agent, whose journal knows these jobs."""
        among = Range(FIRST, self.count)
        self.uids = Uids(str(self.leases), among, self.files.incarnation, self.files.root)
        held = Containment(self.files.root, "boot", None, users=among)
        self.chores = Chores(self.files, held, self.uids, lambda: NOW, daemon_log("test"), self.patience_s)
        self.chores.restarted(jobs)

    def make(self, job: str) -> str | None:
        made = self.chores.done(events.MakeJob(job, ("d",), {"task.t": "true"}))
        assert isinstance(made, events.JobDirectoryMade)
        return made.failure

    def clean(self, job: str, keep_s: float = 0.0) -> Cleanliness:
        cleaned = self.chores.done(events.CleanJob(job, {"t": keep_s} if keep_s else {}))
        assert isinstance(cleaned, events.JobCleaned)
        assert cleaned.clean is not None
        return cleaned.clean

    def look(self) -> None:
        while self.chores.look_again():
            pass

    def leased(self) -> dict[str, tuple[int, bool]]:
        return {lease.job: (lease.uid, lease.reason is not None) for lease in self.uids.leases()}

    @property
    def root(self) -> Path:
        return self.place / "root"


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    files = NodeFiles(str(tmp_path / "root"), job_users=True)
    yield Ground(tmp_path, files)
    files.close()


def leave(ground: Ground, job: str, name: str = "left") -> Path:
    """A file of the job's user in `shared/` that has another name somewhere, so that it can't be taken over."""
    user = ground.uids.of(job)
    assert user is not None
    path = ground.root / "shared" / name
    path.write_text("x")
    os.chown(path, user, user)
    os.link(path, ground.place / f"other name of {name}")
    return path


def test_a_job_has_a_user_from_its_first_directory_to_its_clean_up(ground: Ground) -> None:
    assert ground.make("j-1") is None
    user = ground.uids.of("j-1")
    assert user == FIRST
    assert (ground.root / "workitems" / "j-1" / "home").stat().st_uid == user
    assert ground.make("j-1") is None
    assert ground.uids.of("j-1") == user, "also when they are made again"
    assert ground.clean("j-1") == NOTHING
    assert ground.leased() == {}
    assert not (ground.root / "workitems" / "j-1").exists()


def test_when_no_user_is_free_the_directories_are_not_made_and_it_is_said(ground: Ground) -> None:
    ground.count = 2
    ground.start()
    assert ground.make("j-1") is None
    assert "All 1 users for jobs" in (ground.make("k-1") or "")
    assert not (ground.root / "workitems" / "k-1").exists()
    ground.clean("j-1")
    assert ground.make("k-1") is None


def test_t17_a_user_of_which_something_is_left_is_freed_only_when_that_is_gone(ground: Ground) -> None:
    ground.make("j-1")
    left = leave(ground, "j-1")
    clean = ground.clean("j-1")
    assert clean.uid == FIRST
    assert any("left" in line for line in clean.files)
    assert ground.leased() == {"j-1": (FIRST, True)}
    ground.look()
    assert ground.leased() == {"j-1": (FIRST, True)}
    assert left.stat().st_uid == FIRST
    (ground.place / "other name of left").unlink()
    ground.look()
    assert ground.leased() == {}
    assert left.stat().st_uid == 0, "what lies in shared/ is the agent's from now on"


def test_t17_what_takes_long_to_delete_is_nothing_left_but_keeps_its_user_until_it_is_gone(ground: Ground) -> None:
    ground.patience_s = 0.0
    ground.start()
    ground.make("j-1")
    home = ground.root / "workitems" / "j-1" / "home"
    for n in range(2 * LOOK_STEPS):
        (home / str(n)).touch()
    assert ground.clean("j-1") == NOTHING
    assert ground.leased() == {"j-1": (FIRST, True)}
    assert ground.chores.look_again(), "there is more to do at once"
    ground.look()
    assert ground.leased() == {}
    assert list((ground.root / "trash").iterdir()) == []


def test_t17_a_living_process_keeps_its_user_in_quarantine(ground: Ground) -> None:
    ground.make("j-1")
    process = subprocess.Popen(["cat"], user=FIRST, group=FIRST, extra_groups=[], stdin=subprocess.PIPE, cwd="/")
    clean = ground.clean("j-1")
    assert (clean.processes, clean.uid) == (1, FIRST)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    ground.look()
    assert ground.leased() == {}


def test_t17_what_an_earlier_life_left_is_looked_after_by_the_next(ground: Ground) -> None:
    ground.make("j-1")
    leave(ground, "j-1")
    ground.clean("j-1")
    ground.start()
    ground.look()
    assert ground.leased() == {"j-1": (FIRST, True)}
    (ground.place / "other name of left").unlink()
    ground.start()
    ground.look()
    assert ground.leased() == {}


def test_a_clean_up_that_a_crash_cut_short_finds_the_jobs_user_again(ground: Ground) -> None:
    ground.make("j-1")
    leave(ground, "j-1")
    first = ground.clean("j-1")
    ground.start("j-1")  # the agent died before the end of the release was recorded: it cleans up once more
    assert ground.clean("j-1") == first


def test_a_job_that_is_back_is_not_touched_for_the_sake_of_its_earlier_user(ground: Ground) -> None:
    ground.make("j-1")
    leave(ground, "j-1")
    ground.clean("j-1")
    assert ground.make("j-1") is None
    home = ground.root / "workitems" / "j-1" / "home"
    assert home.stat().st_uid == ground.uids.of("j-1") == FIRST + 1
    ground.look()
    assert home.exists()
    (ground.place / "other name of left").unlink()
    assert ground.clean("j-1") == NOTHING
    ground.look()
    assert ground.leased() == {}


def test_a_user_is_its_jobs_while_something_is_kept_and_that_is_nothing_left(ground: Ground) -> None:
    ground.make("j-1")
    kept = ground.root / "workitems" / "j-1" / "t"
    kept.mkdir()
    os.chown(kept, FIRST, FIRST)
    os.utime(kept, (NOW, NOW))
    assert ground.clean("j-1", keep_s=60.0) == NOTHING
    assert ground.leased() == {"j-1": (FIRST, False)}
    ground.start("j-1")
    assert ground.leased() == {"j-1": (FIRST, False)}, "also in another life, as the journal knows of it"
    assert ground.clean("j-1") == NOTHING
    assert ground.leased() == {}


def test_a_user_whose_job_the_journal_does_not_know_is_looked_at_and_freed(ground: Ground) -> None:
    ground.make("j-1")
    ground.make("k-1")
    ground.start("k-1")
    assert ground.leased() == {"j-1": (FIRST, True), "k-1": (FIRST + 1, False)}
    ground.look()
    assert ground.leased() == {"k-1": (FIRST + 1, False)}
    assert not (ground.root / "workitems" / "j-1").exists()
    assert (ground.root / "workitems" / "k-1").exists()


def test_leases_that_can_not_be_written_leave_the_user_with_its_job_and_are_said(ground: Ground) -> None:
    ground.make("j-1")
    before = ground.leases.read_text()
    ground.leases.write_text("{")
    assert "is damaged" in (ground.make("k-1") or "")
    clean = ground.clean("j-1")
    assert (clean.uid, "is damaged" in clean.files[0]) == (FIRST, True)
    ground.look()
    ground.leases.write_text(before)
    assert ground.leased() == {"j-1": (FIRST, False)}


def test_of_a_jobs_tree_only_its_own_files_and_the_agents_are_read(ground: Ground) -> None:
    ground.make("j-1")
    ground.make("k-1")
    for path, uid, may in (
        ("workitems/j-1/x", FIRST, True),
        ("workitems/./j-1//x", FIRST, True),
        ("workitems/j-1/x", FIRST + 1, False),
        ("workitems/unknown/x", FIRST, False),
        ("workitems", FIRST, False),
    ):
        owners = ground.chores.owners(path)
        assert owners is not None
        assert owners(uid) is may, path
    in_shared = ground.chores.owners("shared/x")
    assert in_shared is not None
    assert in_shared(FIRST + 1), "in shared/ every job's"
    assert not in_shared(4242), "but nobody's else, who would not have put it there"


def test_the_output_of_a_command_is_not_read_from_what_another_user_put_there(ground: Ground) -> None:
    ground.make("j-1")
    directory = ground.root / "workitems" / "j-1" / "jobrelease"
    directory.mkdir()
    for name, uid in (("stdout.txt", FIRST), ("stderr.txt", FIRST + 1)):
        (directory / name).write_text(f"of {uid}")
        os.chown(directory / name, uid, uid)
    read = ground.chores.done(events.ReadTails("k1", "release.1.1", "workitems/j-1/jobrelease"))
    said = f"of {FIRST}".encode()
    assert read == events.TailsRead("k1", "release.1.1", KeptStream(len(said), b"", said), NOTHING_WRITTEN)
