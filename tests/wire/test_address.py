"""Addresses of both kinds, and why nobody could be reached there, in words."""

from __future__ import annotations

import errno
import socket

import pytest

from wire.address import absence, host_and_port, is_host_and_port, not_logged_in, unreachable


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("host:8443", ("host", 8443)),
        ("10.0.0.1:1", ("10.0.0.1", 1)),
        ("[::1]:65535", ("::1", 65535)),
        ("[fe80::1%eth0]:80", ("fe80::1%eth0", 80)),
        ("a.b-c.example.org:080", ("a.b-c.example.org", 80)),
    ],
)
def test_an_endpoint_has_two_parts(address, parts):
    assert is_host_and_port(address)
    assert host_and_port(address) == parts


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("host", "no address"),
        (":80", "no address"),
        ("[]:80", "no address"),
        ("host:", "no address"),
        ("host:http", "no address"),
        ("ho st:80", "no address"),
        ("host\n:80", "no address"),
        ("a/b:80", "no address"),
        ("::1:80", "brackets"),
        ("host:0", "port is 1 to 65535"),
        ("host:65536", "port is 1 to 65535"),
        ("host:99999999999999999999", "port is 1 to 65535"),
        ("host:٣", "port is 1 to 65535"),
    ],
)
def test_what_is_no_endpoint_is_told(address, why):
    with pytest.raises(ValueError, match=why):
        host_and_port(address)


@pytest.mark.parametrize("path", ["coordinator.sock", "/run/a:80", "./host:80", "host", "host:x"])
def test_a_path_is_no_endpoint(path):
    assert not is_host_and_port(path)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (TimeoutError(), "does not answer"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "nobody listens"),
        (socket.gaierror(-2, "Name or service not known"), "can't be reached: Name or service"),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), "can't be reached: Network is unreachable"),
        (OSError("all attempts failed"), "can't be reached: all attempts failed"),
    ],
)
def test_why_an_endpoint_was_not_reached_is_one_sentence(error, why):
    sentence = unreachable("host:8443", error)
    assert "host:8443" in sentence
    assert why in sentence


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (PermissionError(), "you may not use"),
        (FileNotFoundError(), "no coordinator runs"),
        (ConnectionRefusedError(), "has ended"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
    ],
)
def test_why_a_socket_was_not_reached_is_one_sentence(error, why):
    assert why in absence("/run/coordinator.sock", error)


def test_who_is_not_logged_in_learns_the_command():
    assert "`coordinator login host:8443`" in not_logged_in("host:8443")
