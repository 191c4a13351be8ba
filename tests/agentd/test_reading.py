"""Reading below a node's root only: regular files, of those who may own them, without ever waiting."""

from __future__ import annotations

import fcntl
import os
import signal
import stat

import pytest

from agentd import beneath, reading
from agentd.beneath import FilesError
from tests.agentd.ground import can_mount, in_mount_namespace
from wire import codec, limits
from wire.messages import FileListing, KeptStream


def test_pieces_of_a_file_are_read_from_either_end(node, root):
    (root / "shared" / "f").write_bytes(b"0123456789")
    assert node.read_piece("shared/f", 0, 4) == reading.Piece(b"0123", 0, 10, False)
    assert node.read_piece("/".join(["shared", ".", "f"]), 4, 100) == reading.Piece(b"456789", 4, 10, True)
    assert node.read_piece("shared/f", -3, 100) == reading.Piece(b"789", 7, 10, True)
    assert node.read_piece("shared/f", -30, 100).content == b"0123456789"
    assert node.read_piece("shared/f", 50, 100) == reading.Piece(b"", 50, 10, True)
    assert node.tail("shared/f", 2) == KeptStream(10, b"", b"89")
    assert node.tail("shared/missing").tail == b""


def test_a_missing_file_is_told_from_a_refused_one(node):
    with pytest.raises(FilesError, match=r"Could not read shared/x: there is no such file\.") as missing:
        node.read_piece("shared/x", 0, 1)
    assert missing.value.missing
    with pytest.raises(FilesError, match="no regular file") as refused:
        node.read_piece("shared", 0, 1)
    assert not refused.value.missing


@pytest.mark.parametrize("path", ["../outside/precious", "shared/../../outside/precious", "/etc/hostname", "shared/.."])
def test_nothing_above_the_root_is_read(node, outside, path):
    with pytest.raises(FilesError, match="leads out of the node's root"):
        node.read_piece(path, 0, 10)


@pytest.mark.parametrize("how", [True, False])
def test_links_are_not_followed_wherever_they_stand(node, root, outside, how, monkeypatch):
    monkeypatch.setattr(beneath, "has_openat2", how and beneath.has_openat2)
    (root / "shared" / "file").symlink_to(outside / "precious")
    (root / "shared" / "directory").symlink_to(outside)
    (root / "shared" / "proc").symlink_to("/proc/self/root")
    (root / "shared" / "inside").mkdir()
    for path in ("shared/file", "shared/directory/precious", "shared/proc/etc/hostname"):
        with pytest.raises(FilesError):
            node.read_piece(path, 0, 10)
    with pytest.raises(FilesError):
        node.list_directory("shared/directory")
    assert node.list_directory("shared/inside").entries == []


def test_a_listing_fits_a_frame_whatever_a_job_calls_its_files(node, root):
    where = os.fsencode(root / "shared")
    names = [b"%04d" % number + b"\xff" * 240 for number in range(1500)]
    for name in names:
        os.close(os.open(where + b"/" + name, os.O_CREAT | os.O_WRONLY, 0o600))
    listing = node.list_directory("shared")
    size = len(codec.encode_message(FileListing(1, listing.entries, listing.truncated)))
    assert size < limits.MAX_FRAME - 1000
    assert listing.truncated
    assert [name[:4] for name, *_ in listing.entries] == [f"{number:04}" for number in range(len(listing.entries))]
    assert len(listing.entries) > 800


def test_reading_a_fifo_does_not_hang(node, root):
    os.mkfifo(root / "shared" / "fifo")
    with pytest.raises(FilesError, match="no regular file"):
        node.read_piece("shared/fifo", 0, 10)
    assert node.tail("shared/fifo").tail == b""


@pytest.mark.parametrize("path", [".agent/incarnation", "./.agent/incarnation", ".agent", "/.agent"])
def test_the_agents_own_files_are_not_shown(node, path):
    with pytest.raises(FilesError):
        node.read_piece(path, 0, 10)
    with pytest.raises(FilesError):
        node.list_directory(path)
    assert ".agent" not in [name for name, *_ in node.list_directory("").entries]


@pytest.mark.parametrize("path", ["a\0b", "shared/" + "x" * 300, "shared/" + "y/" * 3000, "\udcff", "z" * 5000])
def test_odd_paths_are_refused_in_words(node, path):
    with pytest.raises(FilesError, match="Could not read"):
        node.read_piece(path, 0, 10)


def test_a_listing_is_sorted_and_bounded(node, root):
    shared = root / "shared"
    for name in ("b", "a", "c"):
        (shared / name).write_text(name * 3)
    (shared / "d").mkdir()
    (shared / "z").symlink_to("/nowhere")
    os.close(os.open(os.fsencode(shared) + b"/\xff", os.O_CREAT))
    listing = node.list_directory("shared")
    assert [(name, is_directory) for name, is_directory, _, _ in listing.entries] == [
        ("a", False),
        ("b", False),
        ("c", False),
        ("d", True),
        ("z", False),
        ("\\xff", False),
    ]
    assert listing.entries[0][2] == 3
    assert not listing.truncated
    short = node.list_directory("shared", limit=2)
    assert ([name for name, *_ in short.entries], short.truncated) == (["a", "b"], True)


# ---- what a hostile job puts there to be read

JOBS = 4242
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="files of another user need root")


def of_job(uid):
    return uid == JOBS


@pytest.mark.parametrize(
    "path",
    [
        "workitems/../../outside/precious",
        "workitems/j/../../../outside/precious",
        "/../outside/precious",
        "//outside",
        "workitems/j/\0/precious",
        "workitems/j\0",
        "workitems/" + "j" * 300,
        "../" * 100 + "etc/hostname",
        "workitems/\u2025/precious",
        "workitems/\uff0e\uff0e/precious",
        "workitems/%2e%2e/precious",
        ".agent/identity/key.pem",
        "./.agent",
    ],
)
def test_t10_no_path_that_anybody_sends_leads_out_of_the_root(node, root, outside, path):
    (root / "workitems" / "j").mkdir()
    for read in (lambda: node.read_piece(path, 0, 10), lambda: node.list_directory(path)):
        with pytest.raises(FilesError, match=r"^Could not (read|list) "):
            read()
    assert node.tail(path).tail == b""


@pytest.mark.parametrize("job", ["../x", "a/b", "", ".", "..", "a\0b"])
def test_t10_no_name_that_is_a_path_is_cleaned_up_or_removed(node, outside, job):
    with pytest.raises(FilesError):
        node.clean_job(job, {}, 0.0)


@needs_root
def test_t14_a_file_of_another_user_is_not_read_for_the_jobs_people(node, root):
    job = root / "workitems" / "j"
    job.mkdir()
    for name, uid in (("mine", JOBS), ("theirs", 4343)):
        (job / name).write_text(name)
        os.chown(job / name, uid, uid)
    assert node.read_piece("workitems/j/mine", 0, 10, of_job).content == b"mine"
    with pytest.raises(FilesError, match="Could not read workitems/j/theirs: it is another user's"):
        node.read_piece("workitems/j/theirs", 0, 10, of_job)
    assert node.read_piece("workitems/j/theirs", 0, 10).content == b"theirs"


@needs_root
def test_a_directory_of_another_user_is_not_listed(node, root):
    (root / "workitems" / "j" / "theirs").mkdir(parents=True)
    os.chown(root / "workitems" / "j" / "theirs", 4343, 4343)
    with pytest.raises(FilesError, match="another user's"):
        node.list_directory("workitems/j/theirs", owners=of_job)
    assert [name for name, *_ in node.list_directory("workitems/j", owners=of_job).entries] == ["theirs"]


@needs_root
def test_t11_a_secret_of_the_agents_user_is_not_read_by_another_name(node, root, outside, monkeypatch):
    """A hard link that a job made, where the kernel lets it; also when the first name is gone since."""
    monkeypatch.setattr(reading, "_links_are_protected", lambda: False)
    job = root / "workitems" / "j"
    job.mkdir(mode=0o1770)
    job.chmod(0o1770)
    (outside / "secret").write_text("s")
    (outside / "secret").chmod(0o600)
    os.link(outside / "secret", job / "stdout.txt")
    for _ in range(2):
        with pytest.raises(FilesError, match="another user's"):
            node.read_piece("workitems/j/stdout.txt", 0, 10, of_job)
        assert node.tail("workitems/j/stdout.txt", owners=of_job).tail == b""
        (outside / "secret").unlink(missing_ok=True)


@needs_root
def test_output_of_an_elevated_command_is_read(node, root):
    """Root's, where nobody else can make a name."""
    (root / "workitems" / "j" / "t").mkdir(parents=True)
    (root / "workitems" / "j" / "t").chmod(0o700)
    (root / "workitems" / "j" / "t" / "stdout.txt").write_text("out")
    (root / "workitems" / "j" / "t" / "stdout.txt").chmod(0o600)
    assert node.tail("workitems/j/t/stdout.txt", owners=of_job).tail == b"out"


@needs_root
def test_what_was_taken_over_in_shared_is_read_while_nobody_can_forge_it(node, root, monkeypatch):
    (root / "shared" / "cache").write_text("c")
    (root / "shared" / "cache").chmod(0o640)
    monkeypatch.setattr(reading, "_links_are_protected", lambda: True)
    assert node.read_piece("shared/cache", 0, 10, of_job).content == b"c"
    monkeypatch.setattr(reading, "_links_are_protected", lambda: False)
    with pytest.raises(FilesError, match="another user's"):
        node.read_piece("shared/cache", 0, 10, of_job)
    (root / "shared" / "cache").chmod(0o644)
    assert node.read_piece("shared/cache", 0, 10, of_job).content == b"c"


def test_a_file_that_its_owner_keeps_closed_is_not_waited_for(node, root):
    """A lease of fcntl(2) would hold an open back for most of a minute."""
    (root / "shared" / "f").write_text("x")
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    held = os.open(root / "shared" / "f", os.O_RDWR)
    try:
        fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        with pytest.raises(FilesError, match="keeps it closed"):
            node.read_piece("shared/f", 0, 10)
    finally:
        os.close(held)
        signal.signal(signal.SIGIO, signal.SIG_DFL)


@needs_root
def test_a_device_is_never_opened(node, root):
    os.mknod(root / "shared" / "tape", stat.S_IFCHR | 0o666, os.makedev(9, 0))
    with pytest.raises(FilesError, match="no regular file"):
        node.read_piece("shared/tape", 0, 10)


MOUNTED = """
import os, subprocess, sys
from agentd import beneath
from agentd.beneath import FilesError
from agentd.files import NodeFiles
root, outside, openat2 = sys.argv[1:]
beneath.has_openat2 = openat2 == "yes"
node = NodeFiles(root)
os.makedirs(root + "/workitems/j/mounted")
subprocess.run(["mount", "--bind", outside, root + "/workitems/j/mounted"], check=True)
mounted = "workitems/j/mounted"
for read in (lambda: node.read_piece(mounted + "/precious", 0, 9), lambda: node.list_directory(mounted)):
    try:
        read()
    except FilesError as error:
        assert "another file system" in str(error), error
    else:
        raise AssertionError("what is mounted was read")
"""


@pytest.mark.parametrize("openat2", ["yes", "no"])
@pytest.mark.skipif(not can_mount(), reason="mounting needs root and a mount namespace")
def test_t11_what_is_mounted_in_a_jobs_tree_is_not_read(tmp_path, outside, openat2):
    in_mount_namespace(MOUNTED, str(tmp_path / "root"), str(outside), openat2)


def test_t19_ten_gigabytes_of_output_cost_a_tail(node, root):
    path = root / "shared" / "stdout.txt"
    with path.open("wb") as file:
        file.truncate(10 << 30)
        file.seek(-4, os.SEEK_END)
        file.write(b"last")
    assert len(node.tail("shared/stdout.txt").tail) == reading.TAIL_BYTES
    assert node.tail("shared/stdout.txt").tail.endswith(b"\0last")
    piece = node.read_piece("shared/stdout.txt", 0, 1 << 40)
    assert (len(piece.content), piece.size, piece.end) == (reading.PIECE_LIMIT, 10 << 30, False)
    assert node.read_piece("shared/stdout.txt", 1 << 70, 10) == reading.Piece(b"", 2**62, 10 << 30, True)
    assert node.read_piece("shared/stdout.txt", -(1 << 70), 1).offset == 0
