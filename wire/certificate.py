"""Who a certificate names: just enough of X.509 (DER) to read the identities that our own authority signs.

It verifies nothing: OpenSSL did that before a peer's certificate comes here, and one's own comes from one's own disk.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

MAX_CERTIFICATE: Final = 16 * 1024
COORDINATOR: Final = ("coordinator", "coordinator")
"""Role and name in the certificate of every coordinator."""

_URI: Final = re.compile(r"batch://(coordinator|node|user|operator|admin)/([A-Za-z0-9_][A-Za-z0-9_.-]{0,63})\Z")
_ALTERNATIVE_NAMES: Final = bytes.fromhex("551d11")
_SEQUENCE, _INTEGER, _OID, _OCTETS, _UTC_TIME, _TIME = 0x30, 0x02, 0x06, 0x04, 0x17, 0x18
_VERSION, _EXTENSIONS, _NAME_URI = 0xA0, 0xA3, 0x86


class CertificateError(ValueError):
    """No certificate of an identity here. The text is a sentence."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate says of its holder."""

    role: str
    """A value of wire.messages.Role."""
    name: str
    key: str
    """The sha256 (hex) of the public key (DER, SubjectPublicKeyInfo): the identity itself."""
    begins: float
    expires: float
    """Wall clock."""


def identity_uri(role: str, name: str) -> str:
    """The alternative name under which a certificate names an identity. Raises CertificateError."""
    uri = f"batch://{role}/{name}"
    if not _URI.match(uri):
        raise CertificateError(f"{role[:40]!r}, {name[:80]!r}: no role and name of an identity")
    return uri


def read_certificate(der: bytes) -> Certificate:
    """The identity that a certificate names. Raises CertificateError, and nothing else, whatever the bytes are."""
    if len(der) > MAX_CERTIFICATE:
        raise CertificateError(f"a certificate of {len(der)} bytes: at most {MAX_CERTIFICATE}")
    fields = [(tag, whole, content) for tag, whole, content in _parts(_only(_only(der, first=True), first=True))]
    if fields and fields[0][0] == _VERSION:
        del fields[0]
    tags = [tag for tag, _, _ in fields[:6]]
    if tags != [_INTEGER, *[_SEQUENCE] * 5]:
        raise CertificateError("this is no X.509 certificate")
    begins, expires = _validity(fields[3][2])
    extensions = next((content for tag, _, content in fields[6:] if tag == _EXTENSIONS), b"")
    role, name = _identity(extensions)
    return Certificate(role, name, hashlib.sha256(fields[5][1]).hexdigest(), begins, expires)


def _identity(extensions: bytes) -> tuple[str, str]:
    uris: list[bytes] = []
    for _, _, extension in _parts(_only(extensions)) if extensions else ():
        pieces = list(_parts(extension))
        if pieces and pieces[0][0] == _OID and pieces[0][2] == _ALTERNATIVE_NAMES and pieces[-1][0] == _OCTETS:
            uris += [content for tag, _, content in _parts(_only(pieces[-1][2])) if tag == _NAME_URI]
    found = _URI.match(uris[0].decode("ascii", "replace")) if len(uris) == 1 else None
    if found is None:
        raise CertificateError("the certificate names no identity of this system")
    return found[1], found[2]


def _validity(content: bytes) -> tuple[float, float]:
    times = [_moment(tag, text) for tag, _, text in _parts(content)]
    if len(times) != 2:
        raise CertificateError("the certificate does not say how long it is valid")
    return times[0], times[1]


def _moment(tag: int, text: bytes) -> float:
    shape = {_UTC_TIME: "%y%m%d%H%M%SZ", _TIME: "%Y%m%d%H%M%SZ"}.get(tag)
    try:
        if shape is None:
            raise ValueError
        return datetime.strptime(text.decode("ascii"), shape).replace(tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        raise CertificateError("the certificate holds a time that is none") from None


# ---- DER


def _only(content: bytes, *, first: bool = False) -> bytes:
    """The content of the one sequence there (of the first one)."""
    parts = list(_parts(content))
    if not parts or parts[0][0] != _SEQUENCE or (len(parts) > 1 and not first):
        raise CertificateError("this is no X.509 certificate")
    return parts[0][2]


def _parts(content: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """(tag, the whole element, its content) of the elements that stand in `content` one after another."""
    at = 0
    while at < len(content):
        begin, tag = at, content[at]
        size_at = at + 1
        if size_at >= len(content):
            raise CertificateError("the certificate is cut off")
        size, at = content[size_at], size_at + 1
        if size >= 0x80:
            digits = size & 0x7F
            if not 1 <= digits <= 3:
                raise CertificateError("the certificate holds a length that is none")
            size, at = int.from_bytes(content[at : at + digits], "big"), at + digits
        if at + size > len(content):
            raise CertificateError("the certificate is cut off")
        yield tag, content[begin : at + size], content[at : at + size]
        at += size
