"""Files of jobs as the agent keeps them: in pieces, verified, for whom they are and nobody else."""

from __future__ import annotations

import hashlib
import os

import pytest

from agentd.beneath import DIRECTORY, FilesError
from agentd.held import HeldFiles, Taken

CONTENT = bytes(range(256)) * 40
DIGEST = hashlib.sha256(CONTENT).hexdigest()
SIZE = len(CONTENT)


class Shelf:
    def __init__(self, root):
        (root / "j-1").mkdir()
        self.directory = root / "j-1"
        self.held = HeldFiles(os.open(root, DIRECTORY))

    def take(self, offset=0, content=b"", *, job="j-1", digest=DIGEST, size=SIZE, reader=None):
        return self.held.take(job, digest, size, offset, content, path="in/curve.csv", reader=reader)


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path)


def test_pieces_make_a_whole_that_only_we_may_read(shelf):
    assert shelf.take() == Taken(0)
    assert shelf.take(0, CONTENT[:3000]) == Taken(3000)
    part = shelf.directory / f"file.{DIGEST}.part"
    assert part.stat().st_mode & 0o777 == 0o600
    assert shelf.take(3000, CONTENT[3000:]) == Taken(len(CONTENT), whole=True)
    whole = shelf.directory / f"file.{DIGEST}"
    assert whole.read_bytes() == CONTENT
    assert (whole.stat().st_mode & 0o777, whole.stat().st_uid) == (0o400, os.geteuid())
    assert shelf.take() == Taken(len(CONTENT), whole=True)
    assert not part.exists()


def test_a_group_may_read_what_is_for_it(shelf):
    shelf.take(0, CONTENT, reader=os.getegid())
    whole = shelf.directory / f"file.{DIGEST}"
    assert (whole.stat().st_mode & 0o777, whole.stat().st_gid) == (0o440, os.getegid())


def test_a_piece_that_is_not_the_next_changes_nothing(shelf):
    shelf.take(0, CONTENT[:3000])
    assert shelf.take(0, CONTENT[:3000]) == Taken(3000)
    assert shelf.take(5000, CONTENT[5000:]) == Taken(3000)
    assert shelf.take(3000, CONTENT[3000:] + b"more") == Taken(3000)


def test_another_content_is_refused_and_begun_anew(shelf):
    with pytest.raises(FilesError, match=r"^DigestMismatch: in/curve.csv came"):
        shelf.take(0, CONTENT[:-1] + b"!")
    assert shelf.take() == Taken(0)
    assert os.listdir(shelf.directory) == [f"file.{DIGEST}.part"]


def test_a_link_in_its_place_is_not_followed(shelf, tmp_path):
    (shelf.directory / f"file.{DIGEST}.part").symlink_to(tmp_path / "outside")
    with pytest.raises(FilesError, match=r"^DownloadFailed: could not keep in/curve.csv here"):
        shelf.take(0, CONTENT)
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("digest", ["", "../x", "A" * 64, DIGEST + "/"])
def test_what_is_no_digest_names_no_file(shelf, digest):
    with pytest.raises(FilesError, match="no digest"):
        shelf.take(digest=digest)


@pytest.mark.parametrize("job", ["..", "j-2", "a/b", ""])
def test_a_job_without_a_directory_has_no_files(shelf, job):
    with pytest.raises(FilesError):
        shelf.take(0, CONTENT, job=job)
