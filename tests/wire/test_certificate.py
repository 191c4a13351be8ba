"""Certificates, keys, signing requests and join strings: read as cryptography reads them, and never more than that."""

from __future__ import annotations

import hashlib
import random
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.certificates import Issuer
from wire.certificate import MAX_CERTIFICATE, CertificateError, identity_uri, read_certificate
from wire.identity import IdentityError, der_of
from wire.invitation import Invitation, InvitationError, parse_invitation, token_digest
from wire.keys import (
    fingerprint,
    key_fingerprint,
    load_key,
    make_key,
    make_request,
    requested_key,
)

ISSUER = Issuer()
PEM, PKCS8, PLAIN = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()


@pytest.mark.parametrize("role", ["node", "user", "operator", "admin", "coordinator"])
@pytest.mark.parametrize("name", ["n", "node-1.example.org", "_", "A" * 64])
def test_what_is_read_is_what_was_signed(role, name):
    identity = ISSUER.identity(role, name)
    found = read_certificate(der_of(identity.certificate))
    loaded = x509.load_pem_x509_certificate(identity.certificate)
    assert (found.role, found.name) == (role, name)
    assert found.key == fingerprint(loaded.public_key()) == key_fingerprint(identity.key)
    assert found.begins == loaded.not_valid_before_utc.timestamp()
    assert found.expires == loaded.not_valid_after_utc.timestamp()


@pytest.mark.parametrize("year", [2027, 2049, 2050, 2999])
def test_times_of_both_forms_are_read(year):
    until = datetime(year, 6, 1, 12, 30, 15, tzinfo=UTC) - datetime.now(UTC)
    found = read_certificate(der_of(ISSUER.identity(expires=until).certificate))
    assert abs(found.expires - datetime(year, 6, 1, 12, 30, 15, tzinfo=UTC).timestamp()) <= 1


@pytest.mark.parametrize(
    "uris",
    [
        [],
        ["batch://node/a", "batch://node/b"],
        ["batch://node/"],
        ["batch://node/a/b"],
        ["batch://node/a\n"],
        ["batch://NODE/a"],
        ["batch://chief/a"],
        ["batch://node/" + "a" * 65],
        ["batch:node/a"],
        ["xbatch://node/a"],
        ["batch://node/-a"],
    ],
)
def test_a_certificate_that_names_no_identity_is_refused(uris):
    with pytest.raises(CertificateError, match="names no identity"):
        read_certificate(der_of(ISSUER.identity(uris=uris).certificate))


def test_an_authority_is_no_identity():
    with pytest.raises(CertificateError, match="names no identity"):
        read_certificate(ISSUER.der)


@given(st.binary(max_size=300))
def test_any_bytes_are_an_identity_or_a_sentence(content):
    with pytest.raises(CertificateError):
        read_certificate(content)


def test_a_damaged_certificate_is_an_identity_or_a_sentence():
    whole = der_of(ISSUER.identity().certificate)
    dice = random.Random(7)
    for _ in range(4000):
        damaged = bytearray(whole)
        for _ in range(dice.randint(1, 4)):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        try:
            assert read_certificate(bytes(damaged[: dice.choice((len(damaged), dice.randrange(len(damaged))))])).name
        except CertificateError as error:
            assert str(error)


def test_a_certificate_without_end_is_not_read():
    with pytest.raises(CertificateError, match="at most"):
        read_certificate(bytes(MAX_CERTIFICATE + 1))


@pytest.mark.parametrize("role", ["root", "", "Node"])
def test_no_certificate_is_made_for_a_role_that_is_none(role):
    with pytest.raises(CertificateError):
        identity_uri(role, "n")


@pytest.mark.parametrize("name", ["", "a b", "a/b", "../a", "-a", "a" * 65, "ä", "a\n"])
def test_no_certificate_is_made_for_a_name_that_is_none(name):
    with pytest.raises(CertificateError):
        identity_uri("node", name)
    assert identity_uri("node", "a") == "batch://node/a"


# ---- keys


def test_a_request_is_for_the_key_that_signed_it():
    key = make_key()
    request = make_request(key)
    assert len(request) < 512
    assert fingerprint(requested_key(request)) == key_fingerprint(key)
    assert len({key_fingerprint(make_key()) for _ in range(5)}) == 5


def test_a_request_for_somebody_elses_key_is_refused():
    """The public key of another, copied into a request that one's own key signs."""
    mine, other = make_key(), make_key()
    request = make_request(mine)
    public = (
        load_key(other)
        .public_key()
        .public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    )
    own = (
        load_key(mine)
        .public_key()
        .public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    )
    with pytest.raises(IdentityError, match="not signed by its own key"):
        requested_key(request.replace(own, public))


@pytest.mark.parametrize("content", [b"", b"0", bytes(300), b"\xff" * 300])
def test_what_is_no_request_is_refused(content):
    with pytest.raises(IdentityError, match="no signing request"):
        requested_key(content)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ec.generate_private_key(ec.SECP384R1()),
        lambda: rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate,
    ],
    ids=["P-384", "RSA", "Ed25519"],
)
def test_a_key_of_another_kind_is_refused(make):
    other = make()
    with pytest.raises(IdentityError, match="EC key on P-256"):
        load_key(other.private_bytes(PEM, PKCS8, PLAIN))
    algorithm = None if isinstance(other, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(other, algorithm)
    with pytest.raises(IdentityError, match="EC key on P-256"):
        requested_key(request.public_bytes(serialization.Encoding.DER))


def test_a_key_that_is_none_or_encrypted_is_refused():
    encrypted = load_key(make_key()).private_bytes(PEM, PKCS8, serialization.BestAvailableEncryption(b"secret"))
    for content in (b"", b"no key", encrypted, ISSUER.pem):
        with pytest.raises(IdentityError, match="no private key"):
            load_key(content)


# ---- join strings


def test_a_join_string_comes_back_and_is_shown_only_when_asked_for():
    invitation = Invitation(hashlib.sha256(ISSUER.der).hexdigest(), "S3cret_-" * 5 + "abc")
    text = invitation.text()
    assert len(text) == 112
    assert parse_invitation(f"  {text}\n") == invitation
    assert "S3cret" not in repr(invitation)
    assert invitation.pins(ISSUER.der)
    assert not invitation.pins(Issuer().der)
    assert token_digest(invitation.secret) == hashlib.sha256(invitation.secret.encode()).hexdigest()


@pytest.mark.parametrize(
    "text",
    ["", "bj1", f"bj2.{'0' * 64}.{'a' * 43}", f"bj1.{'0' * 63}.{'a' * 43}", f"bj1.{'G' * 64}.{'a' * 43}",
     f"bj1.{'0' * 64}.{'a' * 42}", f"bj1.{'0' * 64}.{'a' * 44}", f"bj1.{'0' * 64}.{'!' * 43}", "x" * 10_000],
)  # fmt: skip
def test_what_is_no_join_string_is_refused_and_not_repeated(text):
    with pytest.raises(InvitationError, match="no join string") as raised:
        parse_invitation(text)
    assert len(text) < 4 or text not in str(raised.value)


def test_a_certificate_lives_for_as_long_as_was_said():
    found = read_certificate(der_of(ISSUER.identity(begins=-timedelta(days=1), expires=timedelta(days=7)).certificate))
    assert found.expires - found.begins == timedelta(days=8).total_seconds()


@pytest.mark.parametrize("seed", range(4))
def test_t6_a_damaged_request_is_a_key_or_a_sentence(seed):
    """Strangers send these: whatever the library makes of them must not end the coordinator."""
    dice = random.Random(seed)
    whole = [make_request(make_key()) for _ in range(4)]
    for algorithm in (ec.SECP384R1(), ec.SECP256K1()):
        key = ec.generate_private_key(algorithm)
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA384())
        whole.append(request.public_bytes(serialization.Encoding.DER))
    refused = 0
    for _ in range(3000):
        damaged = bytearray(dice.choice(whole))
        for _ in range(dice.choice((1, 1, 1, 2, 5))):
            place = dice.randrange(len(damaged))
            match dice.randrange(3):
                case 0:
                    damaged[place] = dice.randrange(256)
                case 1:
                    del damaged[place]
                case _:
                    damaged.insert(place, dice.choice((0, 1, 0x30, 0x80, 0xFF)))
        try:
            assert len(fingerprint(requested_key(bytes(damaged)))) == 64
        except IdentityError as error:
            assert str(error)
            refused += 1
    assert refused > 2900
