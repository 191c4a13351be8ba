"""The TLS contexts: version 1.3 only, our own authority only, no names of hosts, no tickets; and what failed, in words.

    client_context(authority, identity)      who we are, and whose coordinator we believe
    client_context(authority)                before we are anybody: to enroll
    server_context(certificate, key, authority)
    unverified_context()                     for AskAuthority alone: nothing secret is said over it

Whatever a context lets through, the identity is read from the certificate after the handshake.
"""

from __future__ import annotations

import os
import ssl
from typing import Final

from wire.certificate import COORDINATOR, CertificateError, read_certificate
from wire.identity import Identity, IdentityError


def client_context(authority: bytes, identity: Identity | None = None) -> ssl.SSLContext:
    """For dialling a coordinator of this authority (PEM). Raises IdentityError."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # coordinators move; which one this is, its certificate says
    context.verify_mode = ssl.CERT_REQUIRED
    _trust(context, authority)
    if identity is not None:
        _present(context, identity.certificate, identity.key)
    return context


def server_context(certificate: bytes, key: bytes, authority: bytes) -> ssl.SSLContext:
    """For accepting peers (all PEM). One without a certificate comes through: it may only ask to be enrolled.
    Raises IdentityError."""
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.num_tickets = 0  # every connection shows its certificate anew
    _trust(context, authority)
    _present(context, certificate, key)
    return context


def unverified_context() -> ssl.SSLContext:
    """For asking an unknown coordinator for its authority's certificate, which is then compared with a pin."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    return context


def _trust(context: ssl.SSLContext, authority: bytes) -> None:
    try:
        context.load_verify_locations(cadata=authority.decode("ascii"))
    except (ssl.SSLError, ValueError):
        raise IdentityError("the authority's certificate can't be read: join or log in again") from None


def _present(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Certificate and key from memory: what was checked is what is used. (The ssl module only takes names of files.)"""
    fd = os.memfd_create("identity", os.MFD_CLOEXEC)
    try:
        os.write(fd, certificate + b"\n" + key)
        context.load_cert_chain(f"/proc/self/fd/{fd}", password=_no_password)
    except (ssl.SSLError, ValueError):
        raise IdentityError("key and certificate do not fit together: join or log in again") from None
    finally:
        os.close(fd)


def _no_password() -> str:
    """An encrypted key is refused instead of asked for on a terminal."""
    raise ValueError("the key is encrypted")


def check_coordinator(der: bytes | None) -> None:
    """What the ssl module verified must be the coordinator's own certificate. Raises CertificateError."""
    found = read_certificate(der or b"")
    if (found.role, found.name) != COORDINATOR:
        raise CertificateError(f"what answers there is no coordinator but {found.role} {found.name}")


# ---- what failed, in words

_ANOTHER_AUTHORITY: Final = "its certificate is of another authority"
_VERIFICATION: Final = {
    7: _ANOTHER_AUTHORITY,
    9: "its certificate is not valid yet: compare the clocks of both machines",
    10: "its certificate has expired, or a clock is wrong",
    18: _ANOTHER_AUTHORITY,
    19: _ANOTHER_AUTHORITY,
    20: _ANOTHER_AUTHORITY,
    21: _ANOTHER_AUTHORITY,
    26: "its certificate is for another purpose",
    30: _ANOTHER_AUTHORITY,
}
"""By OpenSSL's number: the peer's certificate, as we judged it."""

_UNKNOWN_THERE: Final = "it does not know our certificate's authority: join or log in again"
_REASONS: Final = {
    "TLSV1_ALERT_UNKNOWN_CA": _UNKNOWN_THERE,
    "SSLV3_ALERT_BAD_CERTIFICATE": "it refused our certificate",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "it refused our certificate: it is for another purpose",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our certificate has expired: join or log in again, with a new token",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it refused our certificate",
    "TLSV1_ALERT_DECRYPT_ERROR": _UNKNOWN_THERE,
    "TLSV1_ALERT_PROTOCOL_VERSION": "it does not speak TLS 1.3",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it refused the TLS handshake",
    "WRONG_VERSION_NUMBER": "it does not speak TLS",
    "HTTP_REQUEST": "it speaks HTTP and not TLS",
    "HTTPS_PROXY_REQUEST": "it speaks HTTP and not TLS",
    "UNSUPPORTED_PROTOCOL": "it does not speak TLS 1.3",
    "NO_PROTOCOLS_AVAILABLE": "it does not speak TLS 1.3",
    "UNEXPECTED_EOF_WHILE_READING": "it cut the connection",
}


def reason_of(error: ssl.SSLError) -> str:
    """Why TLS failed, of the other side (`it`)."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFICATION.get(error.verify_code, f"its certificate is not valid: {error.verify_message}")
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError):
        return "it cut the connection"
    reason = error.reason or ""
    return _REASONS.get(reason, f"TLS failed: {reason.replace('_', ' ').lower() or 'unknown reason'}")
