"""The authority on disk: made once, loaded as it was, refused when others could have had it; and what it signs."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from coordinator.authority import AUTHORITY_S, SERVER_S, SKEW_S, open_authority
from tests.wire.certificates import Issuer
from wire.certificate import read_certificate
from wire.identity import IdentityError
from wire.keys import key_fingerprint, make_key, make_request, requested_key
from wire.messages import Role

NOW = 1_800_000_000.0
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="giving a file to somebody else needs root")


def test_it_is_made_once_and_loaded_as_it_was(tmp_path: Path) -> None:
    made = open_authority(tmp_path, NOW)
    own = made.server_identity(NOW)
    again = open_authority(tmp_path, NOW + 1000)
    assert (again.digest, again.der) == (made.digest, made.der)
    assert again.server_identity(NOW + 1000) == own
    files = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "authority").iterdir()}
    assert files == dict.fromkeys(("authority.key", "authority.crt", "server.key", "server.crt"), 0o600)
    assert (tmp_path / "authority").stat().st_mode & 0o777 == 0o700


def test_it_may_sign_and_nothing_it_signs_may(tmp_path: Path) -> None:
    authority = open_authority(tmp_path, NOW)
    own = x509.load_der_x509_certificate(authority.der)
    basic = own.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
    assert own.not_valid_after_utc.timestamp() == NOW + AUTHORITY_S
    signed = x509.load_der_x509_certificate(
        authority.sign(requested_key(make_request(make_key())), Role.NODE, "n1", now=NOW, until=NOW + 60)
    )
    assert not signed.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not signed.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign


@pytest.mark.parametrize("role", list(Role))
def test_a_certificate_says_role_name_and_time_and_its_usage_is_that_of_the_role(tmp_path: Path, role: Role) -> None:
    key = make_key()
    der = open_authority(tmp_path, NOW).sign(requested_key(make_request(key)), role, "x-1", now=NOW, until=NOW + 60.9)
    read = read_certificate(der)
    assert (read.role, read.name, read.key) == (role.value, "x-1", key_fingerprint(key))
    assert (read.begins, read.expires) == (NOW - SKEW_S, NOW + 60)
    usage = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    server = role is Role.COORDINATOR
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH]


def test_of_a_request_nothing_but_its_key_gets_into_a_certificate(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import hashes, serialization

    from wire.keys import load_key

    key = make_key()
    greedy = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "admin")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier("batch://admin/root")]), critical=False
        )
        .sign(load_key(key), hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )
    der = open_authority(tmp_path, NOW).sign(requested_key(greedy), Role.USER, "eve", now=NOW, until=NOW + 60)
    assert (read_certificate(der).role, read_certificate(der).name) == ("user", "eve")
    assert b"root" not in der
    assert not x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.BasicConstraints).value.ca


@pytest.mark.parametrize("seed", range(10))
def test_bytes_that_are_nearly_a_request_are_one_or_are_refused_and_nothing_else(seed: int) -> None:
    dice = Random(seed)
    whole = make_request(make_key())
    for _ in range(500):
        content = bytearray(whole)
        for _ in range(dice.randrange(1, 5)):
            at = dice.randrange(len(content))
            change = dice.randrange(3)
            if change == 0:
                content[at] ^= 1 << dice.randrange(8)
            elif change == 1:
                content[at] = dice.choice((0x00, 0x01, 0x02, 0x30, 0x7F, 0x80, 0x84, 0xFF))
            else:
                del content[at : at + dice.randrange(1, 9)]
        with suppress(IdentityError):
            assert requested_key(bytes(content)).curve.name == "secp256r1"


def test_a_request_of_a_version_that_there_is_not_is_refused() -> None:
    content = make_request(make_key()).replace(b"\x02\x01\x00", b"\x02\x01\x07", 1)
    with pytest.raises(IdentityError, match="no signing request"):
        requested_key(content)


def test_nothing_is_signed_for_longer_than_the_authority_lasts(tmp_path: Path) -> None:
    authority = open_authority(tmp_path, NOW)
    der = authority.sign(requested_key(make_request(make_key())), Role.USER, "u", now=NOW, until=NOW + 2 * AUTHORITY_S)
    assert read_certificate(der).expires == NOW + AUTHORITY_S


def test_the_coordinators_own_certificate_is_made_anew_at_half_of_its_time(tmp_path: Path) -> None:
    authority = open_authority(tmp_path, NOW)
    own = authority.server_identity(NOW)
    assert authority.server_identity(NOW + SERVER_S / 2 - SKEW_S - 1) == own
    later = authority.server_identity(NOW + SERVER_S / 2)
    assert later.certificate != own.certificate
    assert key_fingerprint(later.key) != key_fingerprint(own.key)
    assert authority.server_identity(NOW + SERVER_S / 2) == later


@pytest.mark.parametrize(
    "damage", ["missing key", "missing certificate", "garbage", "another key", "of another", "later"]
)
def test_a_certificate_of_the_coordinator_that_can_not_be_used_is_made_anew(tmp_path: Path, damage: str) -> None:
    authority = open_authority(tmp_path, NOW)
    own = authority.server_identity(NOW)
    place = tmp_path / "authority"
    if damage == "missing key":
        (place / "server.key").unlink()
    elif damage == "missing certificate":
        (place / "server.crt").unlink()
    elif damage == "garbage":
        (place / "server.crt").write_bytes(b"\xff garbage")
    elif damage == "another key":
        (place / "server.key").write_bytes(make_key())
    elif damage == "of another":
        other = Issuer().server()
        (place / "server.key").write_bytes(other.key)
        (place / "server.crt").write_bytes(other.certificate)
    else:
        own = authority.server_identity(NOW + SERVER_S)  # a clock that was wrong, and is right now
    found = authority.server_identity(NOW)
    assert found.certificate != own.certificate
    certificate = x509.load_pem_x509_certificate(found.certificate)
    certificate.verify_directly_issued_by(x509.load_der_x509_certificate(authority.der))
    assert certificate.not_valid_before_utc <= datetime.fromtimestamp(NOW, UTC)


def test_an_authority_whose_key_is_gone_is_not_replaced_in_silence(tmp_path: Path) -> None:
    open_authority(tmp_path, NOW)
    (tmp_path / "authority" / "authority.key").unlink()
    with pytest.raises(IdentityError, match=r"authority\.key is missing"):
        open_authority(tmp_path, NOW)


def test_a_key_that_nobody_has_heard_of_is_replaced(tmp_path: Path) -> None:
    made = open_authority(tmp_path, NOW)
    (tmp_path / "authority" / "authority.crt").unlink()  # as a crash in the middle of making it leaves it
    assert open_authority(tmp_path, NOW).digest != made.digest


def test_an_authority_that_does_not_fit_its_key_or_is_over_or_damaged_is_told(tmp_path: Path) -> None:
    open_authority(tmp_path, NOW)
    with pytest.raises(IdentityError, match="has expired"):
        open_authority(tmp_path, NOW + AUTHORITY_S)
    key, certificate = tmp_path / "authority" / "authority.key", tmp_path / "authority" / "authority.crt"
    before = key.read_bytes()
    key.write_bytes(make_key())
    with pytest.raises(IdentityError, match="do not fit together"):
        open_authority(tmp_path, NOW)
    key.write_bytes(b"no key")
    with pytest.raises(IdentityError, match=r"authority\.key: this is no private key"):
        open_authority(tmp_path, NOW)
    key.write_bytes(before)
    certificate.write_bytes(b"no certificate")
    with pytest.raises(IdentityError, match=r"authority\.crt can't be read"):
        open_authority(tmp_path, NOW)


# ---- T18: a key that others could have read


@pytest.mark.parametrize("name", ["authority.key", "server.key"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666, 0o644])
def test_t18_a_key_that_others_may_read_is_not_used(tmp_path: Path, name: str, mode: int) -> None:
    open_authority(tmp_path, NOW).server_identity(NOW)
    (tmp_path / "authority" / name).chmod(mode)
    with pytest.raises(IdentityError, match=rf"others may read .*{name} \(mode {mode:04o}\)"):
        open_authority(tmp_path, NOW).server_identity(NOW)


@needs_root
@pytest.mark.parametrize("name", ["authority.key", "server.key", "authority.crt", "."])
def test_t18_what_belongs_to_somebody_else_is_not_used(tmp_path: Path, name: str) -> None:
    open_authority(tmp_path, NOW).server_identity(NOW)
    os.chown(tmp_path / "authority" / name, 65534, 65534)
    with pytest.raises(IdentityError, match="belongs to another user"):
        open_authority(tmp_path, NOW).server_identity(NOW)


def test_t18_a_directory_or_certificate_that_others_may_change_is_not_used(tmp_path: Path) -> None:
    open_authority(tmp_path, NOW)
    (tmp_path / "authority" / "authority.crt").chmod(0o666)
    with pytest.raises(IdentityError, match="others may change"):
        open_authority(tmp_path, NOW)
    (tmp_path / "authority" / "authority.crt").chmod(0o600)
    (tmp_path / "authority").chmod(0o777)
    with pytest.raises(IdentityError, match="others may change"):
        open_authority(tmp_path, NOW)


def test_t18_a_link_to_a_key_is_not_followed(tmp_path: Path) -> None:
    open_authority(tmp_path, NOW)
    key = tmp_path / "authority" / "authority.key"
    key.rename(tmp_path / "elsewhere.key")
    key.symlink_to(tmp_path / "elsewhere.key")
    with pytest.raises(IdentityError):
        open_authority(tmp_path, NOW)
