"""Keys on disk: private, whole or absent, and refused with a sentence when somebody else could have had them."""

from __future__ import annotations

import os
import stat

import pytest

from tests.wire.certificates import Issuer
from wire.identity import (
    AUTHORITY,
    CERTIFICATE,
    KEY,
    MAX_FILE,
    Identity,
    IdentityError,
    NoIdentity,
    der_of,
    login_directory,
    pem_of,
    read_identity,
    read_private,
    remove_identity,
    write_identity,
    write_private,
)


def modes(directory) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.lstat().st_mode) for path in (directory, *directory.iterdir())}


def test_an_identity_comes_back_as_it_was_from_files_that_are_ours_alone(tmp_path):
    old = os.umask(0)
    try:
        directory = tmp_path / "deep" / "identity"
        identity = Issuer().identity()
        write_identity(directory, identity)
    finally:
        os.umask(old)
    assert read_identity(directory) == identity
    assert modes(directory) == {"identity": 0o700, KEY: 0o600, CERTIFICATE: 0o600, AUTHORITY: 0o600}
    assert stat.S_IMODE((tmp_path / "deep").stat().st_mode) == 0o700


def test_a_key_is_never_shown():
    identity = Issuer().identity()
    assert "PRIVATE" not in repr(identity)
    assert identity.key.decode() not in str(identity)


def test_where_there_is_none_that_is_told(tmp_path):
    for directory in (tmp_path, tmp_path / "missing"):
        with pytest.raises(NoIdentity, match="no identity in"):
            read_identity(directory)
    assert read_private(tmp_path, "key.pem") is None


@pytest.mark.parametrize("missing", [KEY, AUTHORITY])
def test_one_that_is_not_whole_is_told(tmp_path, missing):
    write_identity(tmp_path / "d", Issuer().identity())
    (tmp_path / "d" / missing).unlink()
    with pytest.raises(IdentityError, match=f"not whole.*{missing} is missing"):
        read_identity(tmp_path / "d")


@pytest.mark.parametrize("fails_at", [KEY, AUTHORITY, CERTIFICATE])
def test_an_interrupted_writing_leaves_no_mixture(tmp_path, monkeypatch, fails_at):
    """The machine dies while a second identity replaces the first."""
    first, second = Issuer().identity(), Issuer().identity()
    write_identity(tmp_path / "d", first)
    replace = os.replace

    def die(source, target, **options):
        if target == fails_at:
            raise OSError(5, "Input/output error")
        replace(source, target, **options)

    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(IdentityError, match="Input/output error"):
        write_identity(tmp_path / "d", second)
    monkeypatch.undo()
    with pytest.raises(NoIdentity):
        read_identity(tmp_path / "d")
    assert not [path.name for path in (tmp_path / "d").iterdir() if path.name.startswith(".")]
    write_identity(tmp_path / "d", second)
    assert read_identity(tmp_path / "d") == second


def test_a_file_is_replaced_in_one_step(tmp_path):
    write_private(tmp_path / "d", CERTIFICATE, b"old")
    with open(tmp_path / "d" / CERTIFICATE, "rb") as open_before:
        write_private(tmp_path / "d", CERTIFICATE, b"new")
        assert open_before.read() == b"old"
    assert read_private(tmp_path / "d", CERTIFICATE) == b"new"


def test_what_is_removed_is_gone(tmp_path):
    remove_identity(tmp_path / "d")
    write_identity(tmp_path / "d", Issuer().identity())
    remove_identity(tmp_path / "d")
    assert list((tmp_path / "d").iterdir()) == []


# ---- what others could read or change


@pytest.mark.parametrize("name", [KEY, "authority.key", "server.key"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o666, 0o601])
def test_t18_a_key_that_others_may_read_is_not_used(tmp_path, name, mode):
    write_private(tmp_path / "d", name, b"k")
    (tmp_path / "d" / name).chmod(mode)
    with pytest.raises(IdentityError, match=rf"others may read .*{name} \(mode 0{mode:o}\)"):
        read_private(tmp_path / "d", name)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o444])
def test_a_certificate_is_public(tmp_path, mode):
    write_private(tmp_path / "d", CERTIFICATE, b"c")
    (tmp_path / "d" / CERTIFICATE).chmod(mode)
    assert read_private(tmp_path / "d", CERTIFICATE) == b"c"


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_t18_a_certificate_that_others_may_change_is_not_used(tmp_path, mode):
    write_private(tmp_path / "d", AUTHORITY, b"c")
    (tmp_path / "d" / AUTHORITY).chmod(mode)
    with pytest.raises(IdentityError, match="others may change"):
        read_private(tmp_path / "d", AUTHORITY)


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777, 0o1777])
def test_t18_a_directory_that_others_may_change_is_not_used(tmp_path, mode):
    write_private(tmp_path / "d", KEY, b"k")
    (tmp_path / "d").chmod(mode)
    with pytest.raises(IdentityError, match="others may change"):
        read_private(tmp_path / "d", KEY)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_t18_files_and_directories_of_another_user_are_not_used(tmp_path):
    write_private(tmp_path / "d", KEY, b"k")
    os.chown(tmp_path / "d" / KEY, 4242, -1)
    with pytest.raises(IdentityError, match="belongs to another user"):
        read_private(tmp_path / "d", KEY)
    os.chown(tmp_path / "d", 4242, -1)
    with pytest.raises(IdentityError, match="belongs to another user"):
        write_private(tmp_path / "d", KEY, b"k")


def test_no_link_is_followed_and_no_pipe_is_read(tmp_path):
    write_private(tmp_path / "d", KEY, b"k")
    (tmp_path / "link").symlink_to(tmp_path / "d")
    with pytest.raises(IdentityError, match="can't be used for keys"):
        read_private(tmp_path / "link", KEY)
    (tmp_path / "d" / CERTIFICATE).symlink_to(tmp_path / "d" / KEY)
    with pytest.raises(IdentityError, match="can't be used for keys"):
        read_private(tmp_path / "d", CERTIFICATE)
    os.mkfifo(tmp_path / "d" / AUTHORITY, 0o600)
    with pytest.raises(IdentityError, match="no plain file"):
        read_private(tmp_path / "d", AUTHORITY)


def test_a_file_that_is_no_key_by_its_size_is_not_read(tmp_path):
    write_private(tmp_path / "d", KEY, bytes(MAX_FILE + 1))
    with pytest.raises(IdentityError, match="larger than any key"):
        read_private(tmp_path / "d", KEY)


def test_a_file_where_the_directory_should_be_is_told(tmp_path):
    (tmp_path / "d").write_text("")
    for use in (lambda: read_private(tmp_path / "d", KEY), lambda: write_private(tmp_path / "d", KEY, b"")):
        with pytest.raises(IdentityError, match="Not a directory"):
            use()


# ---- where, and in what form


def test_a_login_has_a_directory_for_each_coordinator(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert login_directory("host:8443") == tmp_path / "poolkeeper" / "logins" / "host_8443"
    assert login_directory("[::1]:1").name == "::1_1"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert login_directory("host:8443") == tmp_path / ".local/state/poolkeeper/logins/host_8443"
    for address in ("../../etc:1", "host", "a/b:1"):
        with pytest.raises(ValueError, match="no address"):
            login_directory(address)


def test_pem_and_der_are_the_same_certificate():
    issuer = Issuer()
    assert der_of(issuer.pem) == issuer.der
    assert der_of(pem_of(issuer.der)) == issuer.der
    for wrong in (b"", b"certificate", b"\xff\xfe"):
        with pytest.raises(IdentityError, match="no certificate in PEM"):
            der_of(wrong)


def test_what_an_identity_says_of_itself_is_read_from_its_certificate():
    found = Issuer().identity("operator", "carol").read()
    assert (found.role, found.name) == ("operator", "carol")
    with pytest.raises(IdentityError, match=r"no X.509"):
        Identity(b"", pem_of(b"0\x00"), b"").read()
