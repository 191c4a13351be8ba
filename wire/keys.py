"""Making keys and signing requests: the only thing here that needs `cryptography`, so it is imported where it is used.

A key is an EC key on P-256, PEM (PKCS 8, not encrypted: it lies in a private directory). Its fingerprint, the sha256 of
the public key, is the identity.
"""

from __future__ import annotations

import hashlib

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from wire.identity import IdentityError


def make_key() -> bytes:
    """A new private key, PEM."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """The private key in this PEM. Raises IdentityError."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise IdentityError("this is no private key in PEM") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise IdentityError("a key here is an EC key on P-256; this is another")
    return key


def make_request(key: bytes) -> bytes:
    """A signing request (DER) for this private key (PEM). It names nobody: role and name are the coordinator's to say.
    Raises IdentityError."""
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(load_key(key), hashes.SHA256())
    return request.public_bytes(serialization.Encoding.DER)


def requested_key(request: bytes) -> ec.EllipticCurvePublicKey:
    """The public key of a signing request (DER), whose maker has proven to hold the private one. Nothing else of the
    request counts. Raises IdentityError."""
    try:
        parsed = x509.load_der_x509_csr(request)
        proven = parsed.is_signature_valid
        key = parsed.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature, x509.InvalidVersion):
        raise IdentityError("this is no signing request") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise IdentityError("a key here is an EC key on P-256; the request is for another")
    if not proven:
        raise IdentityError("the signing request is not signed by its own key")
    return key


def fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """The identity: sha256 (hex) of the public key (DER, SubjectPublicKeyInfo), as `wire.certificate` reads it."""
    public = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(public).hexdigest()


def key_fingerprint(key: bytes) -> str:
    """As `fingerprint`, of a private key (PEM). Raises IdentityError."""
    return fingerprint(load_key(key).public_key())
