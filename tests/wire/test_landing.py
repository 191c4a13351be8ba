"""Files of commands in a document: what a coordinator takes and what it refuses, and where they land."""

from __future__ import annotations

from typing import Any

import pytest

from tests.wire.test_validate import good, group
from wire import bounds
from wire.landing import clash, refuse_path, scheme_of
from wire.validate import InvalidSpec, validate

PATHS = (
    "", "/a", "../a", "a/../b", "./a", "a//b", "a/", "a\nb", "a\x1bb", "a\0b", "x" * 256, "a/" * 16 + "a",
    "\ud800", "\x85", "/".join(["x" * 200] * 3),
)  # fmt: skip

DIGEST = "ab" * 32


def brought(document: dict[str, Any], *files: dict[str, Any], **more: Any) -> None:
    group(document)["command"].update(files=list(files), **more)


def test_files_of_every_kind_are_taken() -> None:
    document = good()
    brought(
        document,
        {"path": "a/b.csv", "digest": DIGEST, "size_bytes": 7, "mode": 0o644},
        {"path": "a/c.toml", "text": ["text", "n = ", ["axis", 0]]},
        {"path": "d", "url": ["text", "https://x.example/", ["run", "task.id"]]},
        {"path": "e", "url": "http://x.example/", "sha256": DIGEST, "mode": 0o755},
    )
    assert len(validate(document).jobs[0].groups[0].command.files) == 4


@pytest.mark.parametrize(
    "files, reason",
    [([{"path": path, "text": ""}], "no path of a file") for path in PATHS]
    + [
        ([{"path": "a"}], "exactly one of"),
        ([{"path": "a", "text": "", "url": "https://x.example/"}], "exactly one of"),
        ([{"path": "a", "text": "", "sha256": DIGEST}], "stands beside `url`"),
        ([{"path": "a", "url": "https://x.example/", "sha256": "xyz"}], "64 digits"),
        ([{"path": "a", "text": "", "mode": 0o4755}], "000 to 777"),
        ([{"path": "a", "text": "", "mode": -1}], "000 to 777"),
        ([{"path": "a", "text": "x" * (bounds.MAX_FILE_TEXT + 1)}], "at most"),
        ([{"path": f"a{n}", "text": "x" * bounds.MAX_FILE_TEXT} for n in range(6)], "bytes of text"),
        ([{"path": "a", "text": ["axis", 7]}], "malformed expression"),
        ([{"path": "a", "digest": DIGEST}], "a digest and a size"),
        ([{"path": "a", "digest": "../x", "size_bytes": 1}], "digest of a file is 64"),
        ([{"path": "a", "digest": DIGEST, "size_bytes": bounds.MAX_FILE_BYTES + 1}], "size is 1 to"),
        ([{"path": "a", "digest": DIGEST, "size_bytes": 0}], "size is 1 to"),
        ([{"path": "a", "url": "file:///etc/passwd"}], "begins with"),
        ([{"path": "a", "url": "x.example"}], "begins with"),
        ([{"path": "a", "url": "https://x.example/" + "a" * bounds.MAX_URL}], "at most"),
        ([{"path": "a", "text": ""}, {"path": "a", "text": ""}], "lands where `a` does"),
        ([{"path": "a", "text": ""}, {"path": "a/b", "text": ""}], "lands where `a` does"),
        ([{"path": "a/b/c", "text": ""}, {"path": "a", "text": ""}], "lands where `a/b/c` does"),
        ([{"path": f"a{n}", "text": ""} for n in range(bounds.MAX_FILES + 1)], "files: at most"),
        (
            [{"path": "a", "digest": DIGEST, "size_bytes": 1}, {"path": "b", "digest": DIGEST, "size_bytes": 2}],
            "two sizes",
        ),
        (
            [{"path": f"a{n}", "digest": f"{n:064x}", "size_bytes": bounds.MAX_FILE_BYTES} for n in range(5)],
            "its files have",
        ),
    ],
)
def test_a_file_that_can_not_be_is_refused(files: list[dict[str, Any]], reason: str) -> None:
    document = good()
    brought(document, *files)
    with pytest.raises(InvalidSpec, match=reason):
        validate(document)


def test_an_elevated_command_takes_nothing_over_plain_http_without_a_digest() -> None:
    document = good()
    plain = {"path": "a", "url": "http://x.example/"}
    brought(document, plain)
    validate(document)
    brought(document, plain, elevated=True)
    with pytest.raises(InvalidSpec, match="plain `http`"):
        validate(document)
    brought(document, {**plain, "sha256": DIGEST}, elevated=True)
    validate(document)


def test_a_path_of_each_kind_is_refused_with_its_reason() -> None:
    reasons = [refuse_path(path) for path in PATHS]
    assert None not in reasons
    assert [refuse_path(path) for path in ("a", "a/b", ".hidden", "é", "x" * 255, "a/" * 15 + "a")] == [None] * 6


def test_of_any_number_of_paths_the_first_that_is_in_anothers_way_is_found() -> None:
    assert clash(["a/b", "a/c", "ab", "a.b", "b"]) is None
    assert clash(["a/b", "c", "a"]) == ("a", "a/b")
    assert clash(["a", "c", "a/b/c"]) == ("a/b/c", "a")
    assert clash(["a", "a"]) == ("a", "a")


def test_the_scheme_is_known_as_far_as_it_is_written_out() -> None:
    written = ("https://x", "HTTP://x", ["text", "http://", ["axis", 0]], ["axis", 0], ["text", ["axis", 0], "://x"])
    assert [scheme_of(url) for url in written] == ["https", "http", "http", None, None]
    assert [scheme_of(url) for url in ("x.example/a", "", "://x")] == ["", "", ""]
