"""What brings a command's files in, as the process that it is: against servers that behave, and servers that do not."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from agentd import staging
from agentd.staging import StagingError, landing_error, shown

CONTENT = b"rate,curve\n" * 5000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
Answer = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """Answers each path as the test says, and counts what it was asked."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        self.authorizations: list[str | None] = []
        self.over = threading.Event()
        outer = self

        class Speaker(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.close_connection = True
                outer.asked.append(self.path)
                outer.authorizations.append(self.headers["Authorization"])
                with contextlib.suppress(OSError):  # whoever asked has heard enough
                    outer.answers[self.path.partition("?")[0]](self)

            def log_message(self, *_: Any) -> None:
                pass

        self.listener = ThreadingHTTPServer(("127.0.0.1", 0), Speaker)
        self.listener.daemon_threads = True
        self.listener.block_on_close = False
        if context is not None:
            self.listener.socket = context.wrap_socket(self.listener.socket, server_side=True)
        self.thread = threading.Thread(target=self.listener.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()
        self.host = f"127.0.0.1:{self.listener.server_address[1]}"
        self.url = f"{'http' if context is None else 'https'}://{self.host}"

    def close(self) -> None:
        self.over.set()
        self.listener.shutdown()
        self.thread.join()
        self.listener.server_close()

    def give(self, path: str, content: bytes = CONTENT, code: int = 200, **headers: str) -> None:
        def answer(speaker: BaseHTTPRequestHandler) -> None:
            speaker.send_response(code)
            for name, value in {"Content_Length": str(len(content)), **headers}.items():
                speaker.send_header(name.replace("_", "-"), value)
            speaker.end_headers()
            speaker.wfile.write(content)

        self.answers[path] = answer


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


class Node:
    """A work directory, and the process that fills it."""

    def __init__(self, wd: Path) -> None:
        self.wd = wd
        wd.mkdir()
        self.plan = {
            "timeout_s": 30.0, "patience_s": 10.0, "max_bytes": 1 << 20, "tries": 3, "first_s": 0.01, "cap_s": 0.02,
            "proxy": None, "ca": None,
        }  # fmt: skip

    def bring(self, *files: dict[str, Any], **environment: str) -> str:
        """What it said; empty when all came."""
        values: dict[str, str] = {}
        rows = []
        for number, file in enumerate(files):
            row = {"mode": None, "sha256": None, "verified_only": False, **file}
            for kind in ("text", "url"):
                if kind in row:
                    values[f"V{number}"], row[kind] = row[kind], f"V{number}"
            rows.append(row)
        plan = json.dumps({**self.plan, "files": rows})
        done = subprocess.run(
            [sys.executable, "-I", "-S", staging.__file__], cwd=self.wd, capture_output=True, text=True, timeout=60,
            env={"PLAN": plan, **values, **environment}, check=False,
        )  # fmt: skip
        assert done.stderr == ""
        assert (done.returncode == 0) == (done.stdout == "")
        return done.stdout

    def left(self) -> list[str]:
        return sorted(str(path.relative_to(self.wd)) for path in self.wd.rglob("*"))


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "wd")


# ---- what lands


def test_texts_land_below_the_work_directory_with_the_modes_that_were_given(node):
    assert node.bring({"path": "a/b/run.sh", "text": "echo é\n", "mode": 0o755}, {"path": "c", "text": ""}) == ""
    assert (node.wd / "a/b/run.sh").read_text("utf-8") == "echo é\n"
    assert (node.wd / "a/b/run.sh").stat().st_mode & 0o7777 == 0o755
    assert (node.wd / "c").stat().st_mode & 0o7777 == staging.DEFAULT_MODE
    assert node.left() == ["a", "a/b", "a/b/run.sh", "c"]


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127, "漢" * 85, "🎈" * 63])
def test_a_name_as_long_as_can_be_lands(node, name):
    assert node.bring({"path": name, "text": "there"}) == ""
    assert node.left() == [name]


def test_no_set_user_id_bit_lands_whoever_asks_for_it(node):
    assert node.bring({"path": "x", "text": "", "mode": 0o6755}) == ""
    assert (node.wd / "x").stat().st_mode & 0o7777 == 0o755


def test_what_the_agent_keeps_is_copied_and_held_against_its_digest(node, tmp_path):
    held = tmp_path / "held"
    held.write_bytes(CONTENT)
    file = {"path": "in/curve.csv", "held": str(held), "sha256": DIGEST, "mode": 0o644}
    assert node.bring(file) == ""
    assert (node.wd / "in/curve.csv").read_bytes() == CONTENT
    held.write_bytes(CONTENT + b"more")
    assert node.bring({**file, "path": "again"}).startswith("DigestMismatch: again has the sha256 ")
    held.unlink()
    assert node.bring({**file, "path": "again"}).startswith("DownloadFailed: again is not on this node: No such file")
    assert node.left() == ["in", "in/curve.csv"]


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../x", "", "a//b", ".", "a/."])
def test_no_path_leads_out_of_the_work_directory(node, path):
    assert node.bring({"path": path, "text": "x"}).startswith("DownloadFailed: ")
    assert node.left() == []
    assert sorted(os.listdir(node.wd.parent)) == ["wd"]


def test_a_link_in_the_way_is_not_followed(node, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (node.wd / "in").symlink_to(outside)
    assert node.bring({"path": "in/x", "text": "x"}) == "DownloadFailed: something stands in the way of in/x."
    (node.wd / "name").symlink_to(outside / "target")
    assert node.bring({"path": "name", "text": "x"}).startswith(
        "DownloadFailed: could not write name: something stands"
    )
    assert list(outside.iterdir()) == []


def test_a_directory_that_becomes_a_link_meanwhile_leads_nowhere(node, tmp_path, server):
    outside = tmp_path / "outside"
    outside.mkdir()

    def answer(speaker: BaseHTTPRequestHandler) -> None:
        (node.wd / "in").rename(node.wd / "moved")
        (node.wd / "in").symlink_to(outside)
        speaker.send_response(200)
        speaker.send_header("Content-Length", "1")
        speaker.end_headers()
        speaker.wfile.write(b"x")

    server.answers["/x"] = answer
    assert node.bring({"path": "in/x", "url": f"{server.url}/x"}) == ""
    assert list(outside.iterdir()) == []
    assert (node.wd / "moved/x").read_bytes() == b"x"


def test_a_full_disk_and_a_used_up_quota_are_named():
    for number in (errno.ENOSPC, errno.EDQUOT):
        assert str(landing_error(OSError(number, "x"), "in/a")) == "DiskFull: no room on the node for in/a."
    assert str(landing_error(OSError(errno.EACCES, "Permission denied"), "a")).startswith("DownloadFailed: could not")


def test_a_disk_that_is_full_leaves_nothing_half_written(node):
    fd = os.open(node.wd, os.O_RDONLY)
    landing = staging.Landing(fd, "in/big")
    os.close(landing._fd)
    landing._fd = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(StagingError, match=r"DiskFull: no room on the node for in/big"):
        landing.write(b"x" * 100)
    landing.close()
    os.close(fd)
    assert node.left() == ["in"]


# ---- what is fetched


def test_a_download_lands_verified(node, server):
    server.give("/curve.csv")
    assert node.bring({"path": "curve.csv", "url": f"{server.url}/curve.csv", "sha256": DIGEST}) == ""
    assert (node.wd / "curve.csv").read_bytes() == CONTENT


def test_another_content_is_a_mismatch_and_leaves_nothing(node, server):
    server.give("/curve.csv", CONTENT[:-1] + b"!")
    said = node.bring({"path": "curve.csv", "url": f"{server.url}/curve.csv", "sha256": DIGEST})
    assert said.startswith(f"DigestMismatch: {server.url}/curve.csv has the sha256 ")
    assert server.asked == ["/curve.csv"]
    assert node.left() == []


def test_what_is_absent_is_not_asked_for_again_and_its_secrets_are_not_told(node, server):
    server.give("/a", b"no", 404)
    said = node.bring({"path": "a", "url": f"http://me:hunter2@{server.host}/a?token=hunter3"})
    assert said == f"DownloadFailed: {server.url}/a?…: 404 Not Found."
    assert server.asked == ["/a?token=hunter3"]


@pytest.mark.parametrize(
    "url",
    ["http://me:hunter2/more@{host}/x", "http://me:hun ter2/@{host}/x", "http://[hunter2/x", "http://{host}:hunter2/x"],
)
def test_a_malformed_url_is_not_tried_again_and_its_secrets_are_not_told(node, server, url):
    said = node.bring({"path": "x", "url": url.format(host=server.host)})
    assert said == "DownloadFailed: a malformed URL: neither a host nor a port can be read in it."


@pytest.mark.parametrize("code", [202, 204, 205, 206])
def test_an_answer_that_is_not_the_file_is_none(node, server, code):
    server.give("/x", b"", code)
    assert node.bring({"path": "x", "url": f"{server.url}/x"}).startswith(f"DownloadFailed: {server.url}/x: {code} ")
    assert node.left() == []


def test_a_server_that_is_busy_is_asked_again_and_again_up_to_its_budget(node, server):
    server.give("/a", b"no", 503)
    said = node.bring({"path": "a", "url": f"{server.url}/a"})
    assert said == f"DownloadFailed: {server.url}/a: 503 Service Unavailable (3 times)."
    assert len(server.asked) == 3


def test_a_second_try_begins_anew(node, server):
    def answer(speaker: BaseHTTPRequestHandler) -> None:
        speaker.send_response(200)
        speaker.send_header("Content-Length", str(len(CONTENT)))
        speaker.end_headers()
        speaker.wfile.write(CONTENT if len(server.asked) > 1 else CONTENT[:7000])

    server.answers["/a"] = answer
    assert node.bring({"path": "a", "url": f"{server.url}/a"}) == ""
    assert (node.wd / "a").read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_an_endless_body_ends_at_the_limit(node, server):
    def answer(speaker: BaseHTTPRequestHandler) -> None:
        speaker.send_response(200)
        speaker.end_headers()
        while not server.over.is_set():
            speaker.wfile.write(bytes(65536))

    server.answers["/a"] = answer
    said = node.bring({"path": "a", "url": f"{server.url}/a"})
    assert said == f"DownloadFailed: {server.url}/a has more than the {1 << 20} bytes that this node takes."
    assert node.left() == []


def test_a_body_that_is_announced_too_large_is_not_read(node, server):
    server.give("/a", b"x", Content_Length=str(1 << 40))
    assert "more than the" in node.bring({"path": "a", "url": f"{server.url}/a"})


def test_a_server_that_drips_for_ever_is_given_up_in_time(node, server):
    def answer(speaker: BaseHTTPRequestHandler) -> None:
        speaker.send_response(200)
        speaker.send_header("Content-Length", "1000000")
        speaker.end_headers()
        while not server.over.wait(0.05):
            speaker.wfile.write(b"x")
            speaker.wfile.flush()

    server.answers["/a"] = answer
    node.plan["timeout_s"] = 0.6
    began = time.monotonic()
    assert node.bring({"path": "a", "url": f"{server.url}/a"}) == (
        f"DownloadFailed: {server.url}/a was not here within 0.6 s."
    )
    assert time.monotonic() - began < 10
    assert node.left() == []


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://x.example/a", "gopher://x/", "data:text/plain,x"])
def test_no_redirect_leads_to_anything_but_http(node, server, place):
    server.give("/a", b"", 302, Location=place)
    said = node.bring({"path": "a", "url": f"{server.url}/a"})
    assert "is not fetched: only https and http are." in said
    assert f"where {server.url}/a redirects" in said
    assert node.left() == []


def test_redirects_are_followed_a_few_times_without_the_credentials_of_the_first(node, server):
    other = Server()
    server.give("/a", b"", 302, Location="/b")
    server.give("/b", b"", 307, Location=f"{other.url}/c")
    other.give("/c")
    assert node.bring({"path": "a", "url": f"http://me:hunter2@{server.host}/a"}) == ""
    other.close()
    assert server.authorizations == ["Basic bWU6aHVudGVyMg=="] * 2
    assert other.authorizations == [None]


def test_a_redirect_in_circles_ends(node, server):
    server.give("/a", b"", 301, Location="/a")
    assert "redirects more than 5 times" in node.bring({"path": "a", "url": f"{server.url}/a"})
    assert len(server.asked) == staging.MAX_REDIRECTS + 1


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://x.example/a", "/etc/passwd", "x", ""])
def test_nothing_but_http_is_fetched(node, url):
    assert node.bring({"path": "a", "url": url}).startswith("DownloadFailed: ")
    assert node.left() == []


def test_a_refused_connection_is_a_failed_download(node, server):
    closed = Server()
    closed.close()
    said = node.bring({"path": "a", "url": f"{closed.url}/a"})
    assert said == f"DownloadFailed: {closed.url}/a: Connection refused (3 times)."


def test_an_elevated_command_takes_nothing_over_plain_http_without_a_digest(node, server):
    server.give("/a")
    file = {"path": "a", "url": f"{server.url}/a", "verified_only": True}
    assert "plain http without sha256" in node.bring(file)
    assert server.asked == []
    assert node.bring({**file, "sha256": DIGEST}) == ""


def test_the_nodes_proxy_is_used_and_the_environments_is_not(node, server):
    server.give("http://x.example/a")
    node.plan["proxy"] = server.url
    assert node.bring({"path": "a", "url": "http://x.example/a"}) == ""
    node.plan["proxy"] = None
    server.give("/b")
    assert node.bring({"path": "b", "url": f"{server.url}/b"}, http_proxy="http://127.0.0.1:1") == ""


def test_https_is_trusted_by_the_authorities_that_the_node_was_given_and_no_others(node, tmp_path):
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    server, plain = Server(context), Server()
    server.give("/a")
    server.give("/down", b"", 302, Location=f"{plain.url}/a")
    plain.give("/a")
    file = {"path": "a", "url": f"{server.url}/a"}
    assert "its certificate is not to be trusted" in node.bring(file)
    node.plan["ca"] = str(ca)
    assert node.bring(file) == ""
    down = {"path": "b", "url": f"{server.url}/down"}
    assert "without sha256 https is not left" in node.bring(down)
    assert node.bring({**down, "sha256": DIGEST}) == ""
    server.close()
    plain.close()


def test_of_a_url_only_what_is_no_secret_is_shown():
    assert shown("https://u:p@x.example:8443/a/b?k=v#f") == "https://x.example:8443/a/b?…"
    assert shown("https://[half") == "a malformed URL"
    assert "\n" not in shown("https://x.example/a\nb")
