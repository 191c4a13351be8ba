"""The coordinator's own certificate authority: its key and certificate in `<state>/authority`, the certificate by which
the coordinator is known, and the signing of everybody else's. Who gets one is decided elsewhere.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from wire.certificate import COORDINATOR, CertificateError, identity_uri, read_certificate
from wire.identity import IdentityError, der_of, read_private, write_private
from wire.keys import fingerprint, key_fingerprint, load_key, make_key
from wire.messages import Role

DIRECTORY: Final = "authority"
DAY_S: Final = 86_400.0
AUTHORITY_S: Final = 3650 * DAY_S
SERVER_S: Final = 90 * DAY_S
SKEW_S: Final = 300.0
"""Certificates begin so long ago: the clock of the peer may be behind ours."""

_KEY, _CERTIFICATE = "authority.key", "authority.crt"
_SERVER_KEY, _SERVER_CERTIFICATE = "server.key", "server.crt"


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """What the coordinator shows to whoever connects: PEM, and when it should be made anew (wall clock)."""

    certificate: bytes
    key: bytes
    due: float


class Authority:
    """Signs. Invariant: of what a peer sends nothing gets into a certificate but its public key."""

    def __init__(self, directory: Path, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self.directory = directory
        self.der = certificate.public_bytes(serialization.Encoding.DER)
        self.pem = certificate.public_bytes(serialization.Encoding.PEM)
        self.digest = hashlib.sha256(self.der).hexdigest()
        """What join strings pin."""
        self._key = key
        self._certificate = certificate

    def sign(self, key: ec.EllipticCurvePublicKey, role: Role, name: str, *, now: float, until: float) -> bytes:
        """A certificate (DER) for who holds this key: that it is `role` and `name`, until then."""
        usage = ExtendedKeyUsageOID.SERVER_AUTH if role is Role.COORDINATOR else ExtendedKeyUsageOID.CLIENT_AUTH
        uri = x509.UniformResourceIdentifier(identity_uri(role.value, name))
        ours = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        made = (
            _builder(name, self._certificate.subject, key, now, min(until, _end_of(self._certificate)))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usages(), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=True)
            .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ours), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return made.public_bytes(serialization.Encoding.DER)

    def server_identity(self, now: float) -> ServerIdentity:
        """The coordinator's own certificate, made anew when half of its time is over. Raises IdentityError."""
        key = read_private(self.directory, _SERVER_KEY)
        certificate = read_private(self.directory, _SERVER_CERTIFICATE)
        if key is not None and certificate is not None:
            begins, due = self._span(key, certificate)
            if begins <= now < due:
                return ServerIdentity(certificate, key, due)
        key = make_key()
        made = self.sign(load_key(key).public_key(), Role.COORDINATOR, COORDINATOR[1], now=now, until=now + SERVER_S)
        certificate = x509.load_der_x509_certificate(made).public_bytes(serialization.Encoding.PEM)
        write_private(self.directory, _SERVER_KEY, key)
        write_private(self.directory, _SERVER_CERTIFICATE, certificate)
        return ServerIdentity(certificate, key, self._span(key, certificate)[1])

    def _span(self, key: bytes, certificate: bytes) -> tuple[float, float]:
        """When its time begins and when half of it is over: no time for one that is not ours, or not of this key."""
        try:
            found = read_certificate(der_of(certificate))
            x509.load_pem_x509_certificate(certificate).verify_directly_issued_by(self._certificate)
            if found.key != key_fingerprint(key) or (found.role, found.name) != COORDINATOR:
                return 0.0, 0.0
        except (CertificateError, IdentityError, InvalidSignature, x509.InvalidVersion, ValueError, TypeError):
            return 0.0, 0.0
        return found.begins, (found.begins + found.expires) / 2


def open_authority(state: Path, now: float) -> Authority:
    """The authority of a state directory; made when there is none yet. Raises IdentityError: keys that others may read
    or that belong to somebody else are not used."""
    directory = state / DIRECTORY
    certificate = read_private(directory, _CERTIFICATE)
    key = read_private(directory, _KEY)
    if certificate is None:
        return _make(directory, now)  # the certificate is written last: of a lone key nobody has heard
    if key is None:
        raise IdentityError(
            f"{directory / _KEY} is missing, without which nobody can be admitted: restore it, or move {directory} "
            "away and have every node and person join anew"
        )
    return _load(directory, key, certificate, now)


def _load(directory: Path, key: bytes, certificate: bytes, now: float) -> Authority:
    try:
        loaded = x509.load_pem_x509_certificate(certificate)
        public = loaded.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
        raise IdentityError(f"{directory / _CERTIFICATE} can't be read: restore it") from None
    try:
        private = load_key(key)
    except IdentityError as error:
        raise IdentityError(f"{directory / _KEY}: {error}") from None
    if not isinstance(public, ec.EllipticCurvePublicKey) or fingerprint(public) != fingerprint(private.public_key()):
        raise IdentityError(f"{directory}: key and certificate of the authority do not fit together: restore them")
    if now >= _end_of(loaded):
        raise IdentityError(
            f"the authority in {directory} has expired, or this machine's clock is wrong. If it is right, move "
            f"{directory} away and have every node and person join anew"
        )
    return Authority(directory, private, loaded)


def _make(directory: Path, now: float) -> Authority:
    pem = make_key()
    key = load_key(pem)
    name = f"Poolkeeper {fingerprint(key.public_key())[:16]}"
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        _builder(name, subject, key.public_key(), now, now + AUTHORITY_S)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usages(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    write_private(directory, _KEY, pem)
    write_private(directory, _CERTIFICATE, certificate.public_bytes(serialization.Encoding.PEM))
    return Authority(directory, key, certificate)


def _builder(
    name: str, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: float, until: float
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(int(now - SKEW_S), UTC))
        .not_valid_after(datetime.fromtimestamp(int(until), UTC))
    )


def _usages(*, signs: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs, key_cert_sign=signs, crl_sign=signs, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _end_of(certificate: x509.Certificate) -> float:
    return certificate.not_valid_after_utc.timestamp()
