"""Reading below a node's root only: regular files, of those who may own them, without ever waiting."""

from __future__ import annotations

import os

import pytest

from agentd import beneath, reading
from agentd.beneath import FilesError


def test_pieces_of_a_file_are_read_from_either_end(node, root):
    (root / "shared" / "f").write_bytes(b"0123456789")
    assert node.read_piece("shared/f", 0, 4) == reading.Piece(b"0123", 0, 10, False)
    assert node.read_piece("/".join(["shared", ".", "f"]), 4, 100) == reading.Piece(b"456789", 4, 10, True)
    assert node.read_piece("shared/f", -3, 100) == reading.Piece(b"789", 7, 10, True)
    assert node.read_piece("shared/f", -30, 100).content == b"0123456789"
    assert node.read_piece("shared/f", 50, 100) == reading.Piece(b"", 50, 10, True)
    assert node.tail("shared/f", 2) == b"89"
    assert node.tail("shared/missing") == b""


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


def test_reading_a_fifo_does_not_hang(node, root):
    os.mkfifo(root / "shared" / "fifo")
    with pytest.raises(FilesError, match="no regular file"):
        node.read_piece("shared/fifo", 0, 10)
    assert node.tail("shared/fifo") == b""


@pytest.mark.parametrize("path", [".agent/incarnation", "./.agent/incarnation", ".agent", "/.agent"])
def test_the_agents_own_files_are_not_shown(node, path):
    with pytest.raises(FilesError):
        node.read_piece(path, 0, 10)
    with pytest.raises(FilesError):
        node.list_directory(path)
    assert ".agent" not in [name for name, *_ in node.list_directory("").entries]


@pytest.mark.parametrize("path", ["a\0b", "shared/" + "x" * 300, "shared/" + "y/" * 3000, "\udcff"])
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
