"""The node's identity on its disk: what a join string may be, when a certificate is renewed, which one is of use."""

from __future__ import annotations

import io
import os
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from agentd.identity import JoinGiven, OutcastError, Papers, held_papers, read_join
from tests.wire.certificates import Issuer
from wire.identity import IdentityError, der_of, read_private, write_identity
from wire.invitation import Invitation, InvitationError
from wire.keys import load_key

DAY_S = 86_400.0
SECRET = "s" * 43


def papers(directory: Path, issuer: Issuer, name: str = "n1", **kinds) -> Papers:
    """As if it had been got just now."""
    write_identity(directory / "identity", issuer.identity("node", name, **kinds))
    return Papers(directory / "identity")


def invitation(issuer: Issuer) -> Invitation:
    import hashlib

    return Invitation(hashlib.sha256(issuer.der).hexdigest(), SECRET)


def der(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)


# ---- what --join says


def test_a_join_string_comes_from_the_command_line_a_file_stdin_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = invitation(Issuer()).text()
    (tmp_path / "join").write_text(f"\n {text}\n")
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{text}\n"))
    monkeypatch.setenv("BATCH_JOIN", text)
    given = [read_join(word) for word in (text, f"@{tmp_path / 'join'}", "-")]
    monkeypatch.setenv("BATCH_JOIN", text)
    given.append(read_join(None))
    assert {each.invitation.text() for each in given if each.invitation} == {text}
    assert len(given) == 4


def test_the_environment_does_not_keep_a_join_string_even_when_another_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    issuer = Issuer()
    monkeypatch.setenv("BATCH_JOIN", "rubbish")
    assert read_join(invitation(issuer).text()).invitation == invitation(issuer)
    assert "BATCH_JOIN" not in os.environ


def test_what_is_no_join_string_is_refused_without_being_repeated() -> None:
    with pytest.raises(InvitationError) as refused:
        read_join(f"bj1.{SECRET}")
    assert SECRET not in str(refused.value)


def test_a_file_that_is_gone_matters_only_to_a_node_without_a_certificate(tmp_path: Path) -> None:
    given = read_join(f"@{tmp_path / 'spent'}")
    assert held_papers(str(papers(tmp_path, Issuer())._directory), given, 0.0) is not None
    with pytest.raises(OutcastError, match="can't be read from"):
        held_papers(str(tmp_path / "none"), given, 0.0)


def test_nothing_that_is_printed_of_what_was_given_holds_the_secret() -> None:
    assert SECRET not in repr(read_join(invitation(Issuer()).text()))


# ---- which identity is of use


def test_an_identity_of_another_coordinator_makes_way_when_the_node_is_told_to_join_one(tmp_path: Path) -> None:
    held = papers(tmp_path, Issuer())
    wall = held.certificate.expires - DAY_S
    assert held_papers(str(tmp_path / "identity"), JoinGiven(), wall) is not None
    assert held_papers(str(tmp_path / "identity"), JoinGiven(invitation(Issuer())), wall) is None
    assert not (tmp_path / "identity" / "key.pem").exists(), "a key is for one coordinator"


def test_an_expired_certificate_asks_for_a_token_and_keeps_its_key(tmp_path: Path) -> None:
    issuer = Issuer()
    held = papers(tmp_path, issuer)
    late = held.certificate.expires + 1
    with pytest.raises(OutcastError, match="node n1 has expired"):
        held_papers(str(tmp_path / "identity"), JoinGiven(), late)
    assert held_papers(str(tmp_path / "identity"), JoinGiven(invitation(issuer)), late) is None
    assert read_private(tmp_path / "identity", "key.pem") == held.identity.key


def test_a_good_certificate_is_used_and_no_token_is_spent(tmp_path: Path) -> None:
    issuer = Issuer()
    held = papers(tmp_path, issuer)
    again = held_papers(str(tmp_path / "identity"), JoinGiven(invitation(issuer)), held.certificate.expires - 1)
    assert again is not None
    assert again.certificate == held.certificate


# ---- renewal


def test_a_certificate_is_renewed_after_half_of_its_life_and_not_by_all_nodes_at_once(tmp_path: Path) -> None:
    issuer = Issuer()
    parts = set()
    for number in range(20):
        held = papers(tmp_path / str(number), issuer, f"n{number}", expires=timedelta(days=7))
        life_s = held.certificate.expires - held._since
        part = (held.renewal_due() - held._since) / life_s
        assert 0.5 <= part < 0.7
        assert held.renewal_due() == Papers(tmp_path / str(number) / "identity").renewal_due(), "not a matter of chance"
        parts.add(round(part, 2))
    assert len(parts) > 8


def test_half_of_a_life_counts_from_when_it_was_got_as_certificates_begin_earlier(tmp_path: Path) -> None:
    held = papers(tmp_path, Issuer(), begins=timedelta(days=-5), expires=timedelta(days=1))
    assert held.renewal_due() > held.certificate.expires - DAY_S + 0.4 * DAY_S


def test_a_renewed_certificate_is_taken_for_the_same_key_only(tmp_path: Path) -> None:
    issuer = Issuer()
    held = papers(tmp_path, issuer, expires=timedelta(hours=1))
    key = load_key(held.identity.key).public_key()
    for wrong in (
        issuer.identity("node", "n1").certificate,
        issuer.sign(key, "node", "n2"),
        issuer.sign(key, "admin", "n1"),
    ):
        with pytest.raises(IdentityError):
            held.renew(der_of(wrong))
    with pytest.raises(IdentityError):
        held.renew(b"no certificate")
    assert Papers(tmp_path / "identity").certificate == held.certificate
    before = held.certificate.expires
    held.renew(der(issuer.sign(key, "node", "n1", expires=timedelta(days=7))))
    assert held.certificate.expires > before + 6 * DAY_S
    assert Papers(tmp_path / "identity").certificate == held.certificate
