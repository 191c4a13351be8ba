"""`coordinator login ADDRESS`: a certificate for a token, and the next one while it lasts."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from coordinator.cli import output
from coordinator.cli.failure import Exit, Failure, misused, reason_of
from coordinator.cli.options import Terms, shaped
from wire.address import host_and_port, unreachable

if TYPE_CHECKING:
    from wire.identity import Identity

MAX_TYPED = 4096
"""Bytes that are read in search of a join string."""
VARIABLE = "BATCH_JOIN"
NEW_KEY = "new-{}.key"
"""The key of a login by a token (its id) that has not come to its end: a try that was interrupted goes on with it."""


@click.command()
@click.argument("place", metavar="ADDRESS")
@click.option(
    "--token",
    "given",
    metavar="JOIN",
    help="A join string: @FILE, - for stdin, or itself, which others on this machine can then read.",
)
@shaped
def login(terms: Terms, place: str, given: str | None) -> None:
    """Be known to the coordinator at ADDRESS (HOST:PORT), by a join string: it is asked for, or read from stdin.

    Without one, and logged in there already, the certificate is renewed. $BATCH_JOIN is taken where one is needed.
    """
    from wire.identity import IdentityError, NoIdentity, login_directory, read_identity, write_identity

    address = place
    try:
        host, port = host_and_port(address)
    except ValueError as error:
        raise misused(str(error)) from None
    directory = login_directory(address)
    text = _piped() if given is None else _given(given)
    try:
        if not text and (known := _known(directory)) is not None:
            identity = _renewed(address, known)
        else:
            identity = _admitted(host, port, directory, text or _asked(address))
        write_identity(directory, identity)
        _forget_new_keys(directory)
        own = read_identity(directory).read()
    except NoIdentity as error:
        raise Failure(Exit.FAILED, "failed", str(error)) from None
    except IdentityError as error:
        raise Failure(Exit.REFUSED, "refused", str(error)) from None
    from coordinator.views import time_text

    document = {"address": address, "name": own.name, "role": own.role, "expires_at": time_text(own.expires)}
    terms.show(document, lambda: [f"logged in at {address} as {own.name} ({own.role}) until {document['expires_at']}"])


def _given(text: str) -> str:
    """What `--token` says."""
    if text == "-":
        return sys.stdin.read(MAX_TYPED).strip()
    if not text.startswith("@"):
        return text.strip()
    try:
        with open(text[1:], encoding="utf-8", errors="replace") as file:
            return file.read(MAX_TYPED).strip()
    except OSError as error:
        raise misused(f"the join string can't be read from {text[1:]}: {reason_of(error)}") from None


def _piped() -> str:
    """What stdin holds, where it is a file or a pipe that somebody filled; nothing else is waited for."""
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return ""
    if not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode)):
        return ""
    return sys.stdin.read(MAX_TYPED).strip()


def _asked(address: str) -> str:
    if stored := os.environ.get(VARIABLE):
        return stored
    if not sys.stdin.isatty():
        raise Failure(
            Exit.REFUSED,
            "refused",
            f"you are not logged in at {address}, and no join string came on stdin",
            "an administrator makes one with `coordinator token create --role user`",
        )
    import getpass

    output.remark(f"not logged in at {address} yet: paste the join string that its administrator gave you")
    return getpass.getpass("Join string: ", sys.stderr).strip()


def _known(directory: Path) -> Identity | None:
    """The identity that one has there, if it still is one."""
    from wire.clock import boot_clock
    from wire.identity import NoIdentity, read_identity

    try:
        identity = read_identity(directory)
    except NoIdentity:
        return None
    if identity.read().expires <= boot_clock()().wall:
        output.remark("the certificate here has expired")
        return None
    return identity


def _admitted(host: str, port: int, directory: Path, text: str) -> Identity:
    """A certificate for a key that is on disk before it is asked for. Raises IdentityError."""
    from wire.enroll import join_now
    from wire.identity import read_private, write_private
    from wire.invitation import InvitationError, parse_invitation, token_digest
    from wire.keys import make_key
    from wire.stream import SessionRefused

    try:
        invitation = parse_invitation(text)
    except InvitationError as error:
        raise misused(str(error)) from None
    name = NEW_KEY.format(token_digest(invitation.secret)[:16])
    key = read_private(directory, name)
    if key is None:
        key = make_key()
        write_private(directory, name, key)
    try:
        return join_now(host, port, invitation, key)
    except SessionRefused as refusal:
        raise Failure(Exit.REFUSED, "refused", str(refusal)) from None
    except OSError as error:
        raise Failure(Exit.REFUSED, "no_coordinator", unreachable(f"{host}:{port}", error)) from None


def _forget_new_keys(directory: Path) -> None:
    for path in directory.glob(NEW_KEY.format("*")):
        path.unlink(missing_ok=True)


def _renewed(address: str, known: Identity) -> Identity:
    """The same key with its next certificate. Raises IdentityError."""
    from coordinator.cli.connection import failure_of
    from wire.certificate import CertificateError, read_certificate
    from wire.identity import Identity, pem_of
    from wire.keys import make_request
    from wire.thin import ThinError, connect

    try:
        with connect(address) as coordinator:
            der = coordinator.renew(make_request(known.key))
            if read_certificate(der).key != known.read().key:
                raise Failure(Exit.FAILED, "failed", "the coordinator answered with a certificate that is not ours")
    except ThinError as error:
        raise failure_of(error) from None
    except CertificateError as error:
        raise Failure(Exit.FAILED, "failed", f"the coordinator answered with no certificate: {error}") from None
    return Identity(known.key, pem_of(der), known.authority)
