"""Keys and certificates on disk: private directories of small files, each written whole or not at all.

An identity is `key.pem`, `certificate.pem` and `authority.pem`. The certificate is written last and removed first, so
a directory that has one is whole. Standard library only: short commands read it too.
"""

from __future__ import annotations

import os
import ssl
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from wire.address import host_and_port
from wire.certificate import Certificate, CertificateError, read_certificate

KEY: Final = "key.pem"
CERTIFICATE: Final = "certificate.pem"
AUTHORITY: Final = "authority.pem"
MAX_FILE: Final = 64 * 1024
_OTHERS_READ: Final = 0o077
_OTHERS_WRITE: Final = 0o022


class IdentityError(Exception):
    """Keys or certificates that can't be used. The text is a sentence for people."""


class NoIdentity(IdentityError):
    """There is none in this directory."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A key with its certificate, and the authority that signed it; all PEM."""

    key: bytes = field(repr=False)
    certificate: bytes
    authority: bytes

    def read(self) -> Certificate:
        """What the certificate says. Raises IdentityError."""
        try:
            return read_certificate(der_of(self.certificate))
        except CertificateError as error:
            raise IdentityError(f"{CERTIFICATE}: {error}") from None


def login_directory(address: str) -> Path:
    """Where a person's identity for the coordinator at `host:port` is kept. Raises ValueError (a sentence)."""
    host, port = host_and_port(address)
    base = os.environ.get("XDG_STATE_HOME", "")
    home = Path(base) if os.path.isabs(base) else Path("~/.local/state").expanduser()
    return home / "poolkeeper" / "logins" / f"{host}_{port}"


def read_identity(directory: str | Path) -> Identity:
    """Raises NoIdentity, IdentityError."""
    if read_private(directory, CERTIFICATE) is None:
        raise NoIdentity(f"there is no identity in {directory}")
    pieces = [read_private(directory, name) for name in (KEY, CERTIFICATE, AUTHORITY)]
    missing = [name for name, piece in zip((KEY, CERTIFICATE, AUTHORITY), pieces, strict=True) if piece is None]
    if missing:
        raise IdentityError(f"the identity in {directory} is not whole ({missing[0]} is missing): join or log in again")
    key, certificate, authority = (piece or b"" for piece in pieces)
    return Identity(key, certificate, authority)


def write_identity(directory: str | Path, identity: Identity) -> None:
    """Put an identity there, in place of one that was. Raises IdentityError."""
    with _opened(directory, make=True) as handle, suppress(FileNotFoundError):
        os.unlink(CERTIFICATE, dir_fd=handle)
    write_private(directory, KEY, identity.key)
    write_private(directory, AUTHORITY, identity.authority)
    write_private(directory, CERTIFICATE, identity.certificate)


def remove_identity(directory: str | Path) -> None:
    """Forget it: its key is of no further use. Raises IdentityError."""
    with suppress(NoIdentity), _opened(directory) as handle:
        for name in (CERTIFICATE, KEY, AUTHORITY):
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=handle)


# ---- one file


def write_private(directory: str | Path, name: str, content: bytes) -> None:
    """Write a file of mode 0600 into a directory of mode 0700 (made if need be), durable and whole or not at all.
    Raises IdentityError."""
    with _opened(directory, make=True) as handle:
        draft = f".{name}.{os.urandom(8).hex()}"
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=handle)
        try:
            with os.fdopen(fd, "wb") as file:
                os.fchmod(fd, 0o600)
                file.write(content)
                file.flush()
                os.fsync(fd)
            os.replace(draft, name, src_dir_fd=handle, dst_dir_fd=handle)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(draft, dir_fd=handle)
            raise
        os.fsync(handle)


def read_private(directory: str | Path, name: str) -> bytes | None:
    """A file of a private directory; None when it, or the directory, does not exist. What holds a key is refused when
    others may read it, and everything is when others may write it. Raises IdentityError."""
    try:
        with _opened(directory) as handle:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=handle)
    except (NoIdentity, FileNotFoundError):
        return None
    with os.fdopen(fd, "rb") as file:
        _check(f"{directory}/{name}", os.fstat(fd), _OTHERS_READ if _is_key(name) else _OTHERS_WRITE)
        content = file.read(MAX_FILE + 1)
    if len(content) > MAX_FILE:
        raise IdentityError(f"{directory}/{name} is larger than any key or certificate")
    return content


def _is_key(name: str) -> bool:
    return name == KEY or name.endswith(".key")


@contextmanager
def _opened(directory: str | Path, *, make: bool = False) -> Iterator[int]:
    """A handle to the directory, which must be ours alone. What fails within is an IdentityError with its reason,
    but for a file that does not exist."""
    try:
        if make:
            Path(directory).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileExistsError):
                os.mkdir(directory, 0o700)
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NoIdentity(f"there is no directory {directory}") from None
    except OSError as error:
        raise IdentityError(f"{directory} can't be used for keys: {error.strerror}") from None
    try:
        if make and os.fstat(handle).st_uid == os.geteuid():
            os.fchmod(handle, 0o700)
        _check(str(directory), os.fstat(handle), _OTHERS_WRITE)
        yield handle
    except FileNotFoundError:
        raise
    except OSError as error:
        raise IdentityError(f"{directory} can't be used for keys: {error.strerror}") from None
    finally:
        os.close(handle)


def _check(path: str, found: os.stat_result, unwanted: int) -> None:
    """Raises IdentityError for what belongs to somebody else or is open to them."""
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise IdentityError(f"{path} is no plain file")
    if found.st_uid not in (os.geteuid(), 0):
        raise IdentityError(f"{path} belongs to another user (uid {found.st_uid}): keys are kept in files of one's own")
    if found.st_mode & unwanted:
        may = "read" if unwanted == _OTHERS_READ else "change"
        raise IdentityError(
            f"others may {may} {path} (mode {stat.S_IMODE(found.st_mode):04o}): it is not used. If nobody did, "
            f"`chmod go= {path}`; else replace the key"
        )


# ---- PEM


def der_of(pem: bytes) -> bytes:
    """A certificate's bytes. Raises IdentityError."""
    try:
        return ssl.PEM_cert_to_DER_cert(pem.decode("ascii"))
    except ValueError:
        raise IdentityError("this is no certificate in PEM") from None


def pem_of(der: bytes) -> bytes:
    """A certificate as text."""
    return ssl.DER_cert_to_PEM_cert(der).encode("ascii")
