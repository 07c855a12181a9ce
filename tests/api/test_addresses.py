"""Kinds of addresses, however they are written: a table."""

from __future__ import annotations

import pytest

from navarch.api import names
from navarch.api.addresses import in_networks, is_dialable, kind_of, parse_address, special_address

LOOPBACK = "may not be in the loopback range (127.0.0.0/8, ::1/128)"
LINK_LOCAL = "may not be in the link-local range (169.254.0.0/16, fe80::/10)"
GROUP = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"

# text, its kind, whether a server may connect to it, what Kubernetes' validation says of it as an endpoint
TABLE = [
    ("10.1.2.3", "global unicast", True, ""),
    ("192.168.0.1", "global unicast", True, ""),
    ("8.8.8.8", "global unicast", True, ""),
    ("2001:db8::1", "global unicast", True, ""),
    ("fd00::1", "global unicast", True, ""),
    ("127.0.0.1", "loopback", False, LOOPBACK),
    ("127.255.0.9", "loopback", False, LOOPBACK),
    ("::1", "loopback", False, LOOPBACK),
    ("0:0:0:0:0:0:0:1", "loopback", False, LOOPBACK),
    ("0.0.0.0", "unspecified", False, "may not be unspecified (0.0.0.0)"),
    ("::", "unspecified", False, "may not be unspecified (::)"),
    ("0.1.2.3", "global unicast", False, ""),
    ("169.254.169.254", "link-local", False, LINK_LOCAL),
    ("fe80::1", "link-local", False, LINK_LOCAL),
    ("febf::1", "link-local", False, LINK_LOCAL),
    ("224.0.0.251", "link-local multicast", False, GROUP),
    ("ff02::fb", "link-local multicast", False, GROUP),
    ("ff12::1", "link-local multicast", False, GROUP),
    ("239.1.1.1", "multicast", False, ""),
    ("ff05::2", "multicast", False, ""),
    ("255.255.255.255", "broadcast", False, ""),
    # IPv4-mapped: for Go, and so for Kubernetes, the IPv4 address itself
    ("::ffff:127.0.0.1", "loopback", False, LOOPBACK),
    ("::ffff:7f00:1", "loopback", False, LOOPBACK),
    ("0:0:0:0:0:FFFF:169.254.169.254", "link-local", False, LINK_LOCAL),
    ("::ffff:0.0.0.0", "unspecified", False, "may not be unspecified (::ffff:0.0.0.0)"),
    ("::ffff:224.0.0.1", "link-local multicast", False, GROUP),
    ("::ffff:255.255.255.255", "broadcast", False, ""),
    ("::ffff:10.1.2.3", "global unicast", True, ""),
    # forms that somebody on the way translates back
    ("::127.0.0.1", "global unicast", False, ""),
    ("::ffff:0:127.0.0.1", "global unicast", False, ""),
    ("64:ff9b::127.0.0.1", "global unicast", False, ""),
    ("64:ff9b::a9fe:a9fe", "global unicast", False, ""),
    ("64:ff9b:1::127.0.0.1", "global unicast", False, ""),
    ("64:ff9b::8.8.8.8", "global unicast", True, ""),
    ("2002:7f00:1::", "global unicast", False, ""),
    ("2002:a9fe:a9fe::1", "global unicast", False, ""),
    ("2002:808:808::1", "global unicast", True, ""),
    ("2001:0:808:808:0:0:80ff:fffe", "global unicast", False, ""),  # Teredo: the client is 127.0.0.1
    ("2001:0:7f00:1:0:0:f7f7:f7f7", "global unicast", False, ""),  # Teredo: the server is
    ("2001:0:808:808:0:0:f7f7:f7f7", "global unicast", True, ""),
    ("2001:db8::5efe:127.0.0.1", "global unicast", False, ""),  # ISATAP
    ("2001:db8::200:5efe:10.0.0.1", "global unicast", True, ""),
    ("fe80::5efe:10.0.0.1", "link-local", False, LINK_LOCAL),
]
NO_ADDRESSES = ("", "localhost", "1.2.3", "127.1", "0x7f000001", "2130706433", "fe80::1%eth0", "::1%lo", "1.2.3.4/32", "[::1]")


@pytest.mark.parametrize(("text", "kind", "dialable", "special"), TABLE)
def test_kinds(text: str, kind: str, dialable: bool, special: str) -> None:
    assert kind_of(parse_address(text)) == kind
    assert is_dialable(text) is dialable
    assert special_address(text) == ([special] if special else [])
    assert names.ip_address(text) == []


@pytest.mark.parametrize("text", NO_ADDRESSES)
def test_what_is_no_address(text: str) -> None:
    assert not is_dialable(text)
    assert names.ip_address(text)
    with pytest.raises(ValueError):
        parse_address(text)


def test_networks_hold_every_form() -> None:
    denied = ["10.128.0.0/9", "fd00:1::/64"]
    for inside in (
        "10.200.0.1", "::ffff:10.200.0.1", "2002:ac8:1::5", "64:ff9b::10.200.0.1", "::10.200.0.1", "fd00:1::7",
    ):  # fmt: skip
        assert in_networks(inside, denied), inside
    for outside in ("10.1.0.1", "::ffff:10.1.0.1", "2002:a01:1::5", "fd00:2::7"):
        assert not in_networks(outside, denied), outside
    with pytest.raises(ValueError):
        in_networks("web.example.com", denied)
