"""Brings the files of one command into the work directory that it is started in, as the user that the command runs as.

Run by path as `python -I -S staging.py` below the command's keeper, before the command; one file, standard library
only. What to bring stands in the environment: `PLAN` (see `Plan`), and each text and URL in a variable of its
own. Exit status 0: all of them are there; else one sentence on stdout says why not, beginning with its kind.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from http.client import HTTPResponse
    from typing import Any, Final, NoReturn
    from urllib.request import OpenerDirector

STEP: Final = 256 * 1024
MAX_REDIRECTS: Final = 5
REDIRECTS: Final = (301, 302, 303, 307, 308)
WHOLE: Final = (200, 203)
"""Answers that bring the file. Others that are no failures bring none, or a part."""
TRANSIENT: Final = (202, 408, 425, 429)
"""Answers below 500 that may be another one next time."""
DEFAULT_MODE: Final = 0o640
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


class StagingError(Exception):
    """A file can't be brought in. The text says what and where, and begins with the kind."""


class TransientError(StagingError):
    """It may be had when it is tried again."""


def _failed(what: str) -> StagingError:
    return StagingError(f"DownloadFailed: {what}")


class Plan:
    """What is brought, and within which bounds: the JSON object in `PLAN`.

    files      list of {path, mode, text | url: name of a variable, or held: a path; sha256, size, verified_only}
    timeout_s  for all of them together
    patience_s of silence of a server
    max_bytes  of one that is downloaded
    tries      of each download, the first one counted
    first_s, cap_s  between them, doubled each time
    proxy, ca  None: none; the proxy's URL, and a file of further authorities
    """

    def __init__(self, plain: dict[str, Any], environment: dict[str, str]) -> None:
        self.files: list[dict[str, Any]] = plain["files"]
        self.timeout_s = float(plain["timeout_s"])
        self.patience_s = float(plain["patience_s"])
        self.max_bytes = int(plain["max_bytes"])
        self.tries = int(plain["tries"])
        self.first_s = float(plain["first_s"])
        self.cap_s = float(plain["cap_s"])
        self.proxy: str | None = plain["proxy"]
        self.ca: str | None = plain["ca"]
        self.environment = environment


# ---- where it lands


class Landing:
    """One file on its way to its path below a directory handle: written under another name, then renamed."""

    def __init__(self, base: int, path: str) -> None:
        parts = path.split("/")
        if not all(parts) or "." in parts or ".." in parts or "\0" in path:
            raise _failed(f"{path!r} is no plain path below the work directory.")
        self.path = path
        self._name = parts[-1]
        self._part = f".{os.getpid()}.part"  # of a name as long as can be there is none that is longer
        self._parent = os.dup(base)
        self._fd = -1
        try:
            for part in parts[:-1]:
                self._descend(part)
            self.begin()
        except OSError as error:
            self.close()
            raise landing_error(error, path) from None

    def _descend(self, part: str) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(part, 0o750, dir_fd=self._parent)
        below = os.open(part, _DIRECTORY, dir_fd=self._parent)
        os.close(self._parent)
        self._parent = below

    def begin(self) -> None:
        """From nothing, again."""
        self._drop()
        self._fd = os.open(self._part, _NEW, 0o600, dir_fd=self._parent)

    def write(self, content: bytes) -> None:
        """Raises StagingError."""
        left = memoryview(content)
        try:
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError as error:
            raise landing_error(error, self.path) from None

    def land(self, mode: int) -> None:
        """It is whole. Raises StagingError."""
        try:
            os.fchmod(self._fd, mode & 0o777)
            try:
                os.stat(self._name, dir_fd=self._parent, follow_symlinks=False)
            except FileNotFoundError:
                os.rename(self._part, self._name, src_dir_fd=self._parent, dst_dir_fd=self._parent)
            else:
                raise FileExistsError(errno.EEXIST, "something stands in its place")
        except OSError as error:
            raise landing_error(error, self.path) from None
        os.close(self._fd)
        self._fd = -1

    def _drop(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            try:
                os.unlink(self._part, dir_fd=self._parent)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise

    def close(self) -> None:
        """Nothing is left of one that did not land."""
        self._drop()
        os.close(self._parent)


def landing_error(error: OSError, path: str) -> StagingError:
    """What prevents a file from being written, in words."""
    if error.errno in _FULL:
        return StagingError(f"DiskFull: no room on the node for {path}.")
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return _failed(f"something stands in the way of {path}.")
    return _failed(f"could not write {path}: {error.strerror or error}.")


# ---- what is here already


def bring(plan: Plan, base: int, file: dict[str, Any]) -> None:
    """One file, from wherever it comes. Raises StagingError."""
    landing = Landing(base, file["path"])
    try:
        if "text" in file:
            landing.write(plan.environment[file["text"]].encode("utf-8", "surrogateescape"))
        elif "held" in file:
            copy(file, landing)
        else:
            download(plan, file, landing)
        mode = file["mode"]
        landing.land(DEFAULT_MODE if mode is None else mode)
    finally:
        landing.close()


def copy(file: dict[str, Any], landing: Landing) -> None:
    """What lay beside the submitted file, from where the agent keeps it. Raises StagingError."""
    path = file["path"]
    digest = hashlib.sha256()
    try:
        with open(os.open(file["held"], os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0) as held:
            while piece := held.read(STEP):
                digest.update(piece)
                landing.write(piece)
    except OSError as error:
        raise _failed(f"{path} is not on this node: {error.strerror or error}.") from None
    _verify(digest.hexdigest(), file["sha256"], path)


def _verify(found: str, wanted: str | None, what: str) -> None:
    if wanted is not None and found != wanted:
        raise StagingError(f"DigestMismatch: {what} has the sha256 {found[:16]}…, not {wanted[:16]}….")


# ---- what is fetched


def shown(url: str) -> str:
    """A URL for people: nothing of it that may be a secret."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        host = parts.hostname or "?"
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        return "a malformed URL"
    text = f"{parts.scheme}://{host}{port}{parts.path}{'?…' if parts.query else ''}"
    return "".join(letter if letter.isprintable() else "�" for letter in text[:200])


def download(plan: Plan, file: dict[str, Any], landing: Landing) -> None:
    """Try it as often as the plan says. Raises StagingError."""
    url = plan.environment[file["url"]]
    for number in range(1, plan.tries + 1):
        try:
            landing.begin()
        except OSError as error:
            raise landing_error(error, landing.path) from None
        try:
            fetch(plan, file, url, landing)
            return
        except TransientError as error:
            if number == plan.tries:
                times = f" ({number} times)" if number > 1 else ""
                raise StagingError(f"{str(error).removesuffix('.')}{times}.") from None
        time.sleep(pause_s(plan, url, number))


def pause_s(plan: Plan, url: str, number: int) -> float:
    """Before the next try: between half and all of a time that doubles, so that a thousand nodes do not ask at once."""
    ceiling = min(plan.cap_s, plan.first_s * 2.0 ** (number - 1))
    digest = hashlib.sha256(f"{url}\0{os.getpid()}\0{number}".encode("utf-8", "surrogateescape")).digest()
    return ceiling * (0.5 + int.from_bytes(digest[:4], "big") / 2**33)


def fetch(plan: Plan, file: dict[str, Any], url: str, landing: Landing) -> None:
    """One try. Raises StagingError; TransientError when another one may do better."""
    from http.client import HTTPException

    what = shown(url)
    try:
        response = ask(plan, file, url)
        with response:
            length = response.headers.get("Content-Length", "")
            wanted = int(length) if length.isdecimal() else None
            if wanted is not None and wanted > plan.max_bytes:
                raise too_large(plan, what)
            digest, size = hashlib.sha256(), 0
            while piece := response.read1(STEP):
                size += len(piece)
                if size > plan.max_bytes:
                    raise too_large(plan, what)
                digest.update(piece)
                landing.write(piece)
            if wanted is not None and size < wanted:
                raise TransientError(f"DownloadFailed: {what} broke off after {size} of {wanted} bytes.")
        _verify(digest.hexdigest(), file["sha256"], what)
    except StagingError:
        raise
    except (OSError, HTTPException) as error:
        raise transport_error(error, what) from None
    except (ValueError, UnicodeError) as error:
        raise _failed(f"{what}: the server or the URL is malformed ({error}).") from None


def too_large(plan: Plan, what: str) -> StagingError:
    return _failed(f"{what} has more than the {plan.max_bytes} bytes that this node takes.")


def transport_error(error: Exception, what: str) -> StagingError:
    """What a connection that did not come to be, or broke, means."""
    from ssl import SSLCertVerificationError

    cause = getattr(error, "reason", error)
    cause = cause if isinstance(cause, Exception) else error
    if isinstance(cause, SSLCertVerificationError):
        return _failed(f"{what}: its certificate is not to be trusted ({cause.verify_message}).")
    words = (getattr(cause, "strerror", None) or str(cause) or type(cause).__name__)[:200]
    return TransientError(f"DownloadFailed: {what}: {words.removesuffix('.')}.")


def ask(plan: Plan, file: dict[str, Any], url: str) -> HTTPResponse:
    """The answer that holds the file, wherever redirects lead. Raises StagingError, OSError, HTTPException,
    ValueError."""
    from urllib.error import HTTPError
    from urllib.parse import urljoin
    from urllib.request import Request

    opener = opener_of(plan)
    first, credentials = parted(url)
    here = first
    for _ in range(MAX_REDIRECTS + 1):
        permitted(file, url, here)
        request = Request(here, headers={"User-Agent": "poolkeeper", "Accept": "*/*", "Accept-Encoding": "identity"})
        if credentials is not None and origin(here) == origin(first):
            request.add_unredirected_header("Authorization", credentials)
        try:
            response: HTTPResponse = opener.open(request, timeout=plan.patience_s)
            if response.status in WHOLE:
                return response
            with response:
                raise refusal(response.status, response.reason, shown(here))
        except HTTPError as error:
            with error:
                place = error.headers.get("Location")
                if error.code not in REDIRECTS or place is None:
                    raise refusal(error.code, error.reason, shown(here)) from None
                here, _ = parted(urljoin(here, place))
    raise _failed(f"{shown(url)} redirects more than {MAX_REDIRECTS} times.")


def refusal(code: int, reason: object, what: str) -> StagingError:
    words = "".join(letter for letter in str(reason)[:100] if letter.isprintable())
    kind = TransientError if code >= 500 or code in TRANSIENT else StagingError
    return kind(f"DownloadFailed: {what}: {code} {words}.")


def permitted(file: dict[str, Any], first: str, url: str) -> None:
    """Raises StagingError for what is not fetched, whoever says so."""
    scheme, before = url.partition(":")[0].lower(), first.partition(":")[0].lower()
    led = "" if url == first else f", where {shown(first)} redirects,"
    if scheme not in ("http", "https"):
        raise _failed(f"{shown(url)}{led} is not fetched: only https and http are.")
    if scheme == "http" and file["sha256"] is None:
        if before == "https":
            raise _failed(f"{shown(url)}{led} is not fetched: without sha256 https is not left.")
        if file["verified_only"]:
            raise _failed(f"{shown(url)} is not fetched for an elevated command: plain http without sha256.")


def parted(url: str) -> tuple[str, str | None]:
    """The URL without who asks, and what says that to the server it names. Raises StagingError."""
    from base64 import b64encode
    from urllib.parse import quote, unquote, urlsplit, urlunsplit

    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # which would say it with a part of a password
        raise _failed(f"{shown(url)}: neither a host nor a port can be read in it.") from None
    person, at, host = parts.netloc.rpartition("@")
    path = quote(parts.path, safe="/%:=&?~#+!$,;'@()*[]")
    query = quote(parts.query, safe="/%:=&?~#+!$,;'@()*[]")
    plain = urlunsplit((parts.scheme, host, path, query, ""))
    if not at:
        return plain, None
    return plain, "Basic " + b64encode(unquote(person).encode()).decode("ascii")


def origin(url: str) -> tuple[str, str]:
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    return parts.scheme.lower(), parts.netloc.lower()


def opener_of(plan: Plan) -> OpenerDirector:
    """Speaks http and https, follows nothing by itself, and knows no proxy but the node's."""
    import ssl
    from urllib import request

    context = ssl.create_default_context()
    if plan.ca is not None:
        context.load_verify_locations(plan.ca)
    opener = request.OpenerDirector()
    proxies = {} if plan.proxy is None else {"http": plan.proxy, "https": plan.proxy}
    for speaker in (
        request.ProxyHandler(proxies),
        request.HTTPHandler(),
        request.HTTPSHandler(context=context),
        request.HTTPErrorProcessor(),
        request.HTTPDefaultErrorHandler(),
        request.UnknownHandler(),
    ):
        opener.add_handler(speaker)
    return opener


# ---- the process


class _Late(BaseException):
    """The time for all files is over: no `except` on the way may take it for its own."""


def _ring(_signum: int, _frame: object) -> NoReturn:
    raise _Late


def stage(plan: Plan) -> str | None:
    """Bring all of it; None, or why not."""
    base = os.open(".", _DIRECTORY)
    signal.signal(signal.SIGALRM, _ring)
    signal.setitimer(signal.ITIMER_REAL, plan.timeout_s)
    what = ""
    try:
        for file in plan.files:
            what = shown(plan.environment[file["url"]]) if "url" in file else file["path"]
            bring(plan, base, file)
    except StagingError as error:
        return str(error)
    except _Late:
        return f"DownloadFailed: {what} was not here within {plan.timeout_s:g} s."
    except OSError as error:
        return str(landing_error(error, what))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.close(base)
    return None


def main() -> int:
    """0 when all files are there."""
    try:
        environment = dict(os.environ)
        refused = stage(Plan(json.loads(environment["PLAN"]), environment))
    except Exception as error:  # a mistake of ours: the command is not started without its files
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        line = trace.tb_lineno if trace is not None else "?"
        refused = f"DownloadFailed: a mistake of what brings files in ({type(error).__name__}, line {line})."
    if refused is None:
        return 0
    os.write(1, refused.encode("utf-8", "replace")[:1000])
    return 1


if __name__ == "__main__":
    sys.stdout.flush()
    os._exit(main())
