"""Uploads: in pieces, resumable, verified, counted per owner, gone when they are done with."""

from __future__ import annotations

import hashlib
import os

import pytest

from wire import limits
from wire.blobs import BlobRefused, Blobs
from wire.ledger import StoreError

CONTENT = bytes(range(256)) * 40
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def blobs(tmp_path):
    return Blobs(tmp_path / "blobs", max_blob=20_000, max_held=25_000)


def bring(blobs: Blobs, content: bytes, owner: str = "alice", piece: int = 3000) -> str:
    digest = hashlib.sha256(content).hexdigest()
    held = blobs.take(owner, digest, 0, len(content), b"")
    while held < len(content):
        held = blobs.take(owner, digest, held, len(content), content[held : held + piece])
    return digest


def test_a_blob_brought_in_pieces_is_read_whole(blobs):
    assert bring(blobs, CONTENT) == DIGEST
    assert blobs.read("alice", DIGEST) == CONTENT


def test_an_interrupted_upload_resumes_where_it_was_also_after_a_restart(blobs, tmp_path):
    assert blobs.take("alice", DIGEST, 0, len(CONTENT), CONTENT[:5000]) == 5000
    again = Blobs(tmp_path / "blobs", max_blob=20_000, max_held=25_000)
    assert again.take("alice", DIGEST, 0, len(CONTENT), b"") == 5000
    assert again.take("alice", DIGEST, 5000, len(CONTENT), CONTENT[5000:]) == len(CONTENT)
    assert again.read("alice", DIGEST) == CONTENT
    assert again.take("alice", DIGEST, 0, len(CONTENT), b"") == len(CONTENT)


def test_a_piece_that_is_not_the_next_changes_nothing_and_tells_what_is(blobs):
    blobs.take("alice", DIGEST, 0, len(CONTENT), CONTENT[:5000])
    assert blobs.take("alice", DIGEST, 0, len(CONTENT), CONTENT[:5000]) == 5000
    assert blobs.take("alice", DIGEST, 7000, len(CONTENT), CONTENT[7000:]) == 5000
    assert blobs.take("alice", DIGEST, 5000, len(CONTENT), CONTENT[5000:]) == len(CONTENT)


def test_an_upload_with_another_digest_is_refused_and_forgotten(blobs):
    wrong = "0" * 64
    with pytest.raises(BlobRefused, match="does not have the digest"):
        blobs.take("alice", wrong, 0, len(CONTENT), CONTENT)
    assert blobs.take("alice", wrong, 0, len(CONTENT), b"") == 0
    with pytest.raises(BlobRefused, match="upload the document again"):
        blobs.read("alice", wrong)


def test_one_owner_neither_sees_nor_pays_for_anothers(blobs):
    bring(blobs, CONTENT, "alice")
    with pytest.raises(BlobRefused, match="no upload"):
        blobs.read("bob", DIGEST)
    bring(blobs, b"b" * 20_000, "bob")


def test_what_one_owner_may_have_lying_here_is_limited(blobs):
    bring(blobs, CONTENT)
    with pytest.raises(BlobRefused, match="10240 bytes of your uploads lie here already, 25000 are allowed"):
        bring(blobs, b"x" * 15_000)
    blobs.forget("alice", DIGEST)
    bring(blobs, b"x" * 15_000)


@pytest.mark.parametrize(
    ("digest", "offset", "size", "content", "reason"),
    [
        ("../../etc/passwd", 0, 5, b"x", "64 hexadecimal digits"),
        (DIGEST.upper(), 0, 5, b"x", "64 hexadecimal digits"),
        (DIGEST + "\n", 0, 5, b"x", "64 hexadecimal digits"),
        (DIGEST, 0, 0, b"", "1 to 20000 bytes"),
        (DIGEST, 0, 20_001, b"x", "1 to 20000 bytes"),
        (DIGEST, -1, 5, b"x", "within its upload"),
        (DIGEST, 4, 5, b"xx", "within its upload"),
        (DIGEST, 0, 20_000, bytes(limits.MAX_CHUNK + 1), "at most"),
    ],
)
def test_a_piece_that_can_not_be_is_refused(blobs, tmp_path, digest, offset, size, content, reason):
    with pytest.raises(BlobRefused, match=reason):
        blobs.take("alice", digest, offset, size, content)
    assert not (tmp_path / "blobs").exists()


@pytest.mark.parametrize("owner", ["../../alice", "", "a/b", "\udcff", "x" * 5000])
def test_no_owner_leads_out_of_the_directory(blobs, tmp_path, owner):
    bring(blobs, CONTENT, owner)
    assert blobs.read(owner, DIGEST) == CONTENT
    assert [entry.name for entry in tmp_path.iterdir()] == ["blobs"]
    with pytest.raises(BlobRefused):
        blobs.read(owner, "../" + DIGEST)


def test_an_upload_nobody_goes_on_with_expires(blobs, tmp_path):
    bring(blobs, CONTENT)
    blobs.take("alice", "1" * 64, 0, 100, b"part")
    (whole,) = (tmp_path / "blobs").glob(f"*/{DIGEST}")
    os.utime(whole, (1000, 1000))
    blobs.expire(1000 + 3600, after_s=7200)
    assert blobs.read("alice", DIGEST)
    blobs.expire(1000 + 7201, after_s=7200)
    with pytest.raises(BlobRefused):
        blobs.read("alice", DIGEST)
    assert blobs.take("alice", "1" * 64, 0, 100, b"") == 4


def test_files_are_private(blobs, tmp_path):
    bring(blobs, CONTENT)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "blobs").rglob("*") if path.is_file()}
    assert modes == {0o600}
    assert (tmp_path / "blobs").stat().st_mode & 0o077 == 0 or tmp_path.stat().st_mode & 0o077 == 0


def test_a_directory_that_can_not_be_written_is_told(tmp_path):
    (tmp_path / "blobs").write_text("a file")
    with pytest.raises(StoreError, match="can't be used"):
        Blobs(tmp_path / "blobs").take("alice", DIGEST, 0, 10, b"x")


def test_a_piece_is_read_of_whatever_owners_blob_has_the_digest(blobs):
    bring(blobs, CONTENT, owner="bob")
    assert blobs.piece(DIGEST, 10_000) == CONTENT[10_000:]
    assert blobs.piece(DIGEST, len(CONTENT)) == b""
    for digest, offset in (("0" * 64, 0), ("../x", 0), (DIGEST, -1)):
        with pytest.raises(BlobRefused):
            blobs.piece(digest, offset)


def test_what_one_owner_brought_another_one_lacks(blobs):
    bring(blobs, CONTENT, owner="bob")
    assert (blobs.lacks("bob", DIGEST), blobs.lacks("alice", DIGEST)) == (False, True)


def test_what_jobs_name_stays_and_what_was_asked_for_just_now(blobs, tmp_path):
    named, asked, old = bring(blobs, b"named"), bring(blobs, b"asked"), bring(blobs, b"old")
    for path in (tmp_path / "blobs").glob("*/*"):
        os.utime(path, (1000, 1000))
    assert not blobs.lacks("alice", asked)
    blobs.expire(1000 + 90_000, {named})
    assert [blobs.lacks("alice", digest) for digest in (named, asked, old)] == [False, False, True]


def test_a_document_is_no_larger_than_documents_are(tmp_path):
    blobs = Blobs(tmp_path / "blobs", max_blob=limits.MAX_DOCUMENT + 1, max_held=2 * limits.MAX_DOCUMENT)
    digest = bring(blobs, bytes(limits.MAX_DOCUMENT + 1), piece=limits.MAX_CHUNK)
    with pytest.raises(BlobRefused, match="a document has at most"):
        blobs.read("alice", digest)
