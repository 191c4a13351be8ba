"""Authorities and identities for tests, good ones and every kind of bad one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from wire.certificate import COORDINATOR
from wire.identity import Identity
from wire.keys import load_key, make_key, requested_key

DAY = timedelta(days=1)
CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH


class Issuer:
    """An authority of its own, with a key made for the test."""

    def __init__(self, name: str = "authority") -> None:
        self.key = load_key(make_key())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = (
            self._builder(self.name, self.key.public_key(), -DAY, 10 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        self.der = made.public_bytes(serialization.Encoding.DER)
        self.pem = made.public_bytes(serialization.Encoding.PEM)

    def _builder(self, subject, key, begins, expires) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .issuer_name(self.name)
            .subject_name(subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins)
            .not_valid_after(now + expires)
        )

    def sign(
        self,
        key: ec.EllipticCurvePublicKey,
        role: str,
        name: str,
        *,
        begins: timedelta = -DAY,
        expires: timedelta = DAY,
        usage=None,
        uris: list[str] | None = None,
    ) -> bytes:
        """A certificate, PEM. `uris` in place of the one that names the identity."""
        usage = usage or (SERVER if role == "coordinator" else CLIENT)
        named = [f"batch://{role}/{name}"] if uris is None else uris
        made = self._builder(x509.Name([]), key, begins, expires).add_extension(
            x509.ExtendedKeyUsage([usage]), critical=False
        )
        if named:
            names = [x509.UniformResourceIdentifier(uri) for uri in named]
            made = made.add_extension(x509.SubjectAlternativeName(names), critical=True)
        return made.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def sign_request(self, request: bytes, role: str, name: str) -> bytes:
        return self.sign(requested_key(request), role, name)

    def identity(self, role: str = "node", name: str = "n1", **kinds) -> Identity:
        key = make_key()
        return Identity(key, self.sign(load_key(key).public_key(), role, name, **kinds), self.pem)

    def server(self, **kinds) -> Identity:
        return self.identity(*COORDINATOR, **kinds)


def self_signed(key: bytes) -> bytes:
    """A certificate of an admin that nobody but its own key has signed, PEM."""
    alone = Issuer("root")
    alone.key = load_key(key)
    return alone.sign(alone.key.public_key(), "admin", "root")
