"""Addresses and names of pods' networks, and users of images. Pure; the packets are tested with containers."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.network.network import AddressPool, NoAddress, interface_name, mac_address
from nodeagent.runtime.conmon import signal_number, tidy
from nodeagent.runtime.users import Identity, UnknownUser, resolve


@given(st.integers(25, 29), st.lists(st.integers(0, 40)), st.integers(0, 5))
def test_addresses_are_unique_and_come_back(prefix: int, steps: list[int], reserved: int) -> None:
    pool = AddressPool()
    with pytest.raises(NoAddress, match="podCIDR"):
        pool.take()
    network = ipaddress.ip_network(f"10.1.2.0/{prefix}")
    usable = network.num_addresses - 3
    taken = [str(network[2 + index]) for index in range(min(reserved, usable))]
    pool.reserve(taken)
    pool.configure(str(network))
    for step in steps:
        if step % 3 == 0 and taken:
            pool.give_back(taken.pop(step % len(taken)))
        elif len(taken) == usable:
            with pytest.raises(NoAddress, match="no free address"):
                pool.take()
        else:
            address = pool.take()
            assert address not in taken
            assert ipaddress.ip_address(address) in list(network)[2:-1]
            taken.append(address)


def test_a_freed_address_is_used_last() -> None:
    pool = AddressPool("10.0.0.0/29")
    first = pool.take()
    pool.give_back(first)
    assert [pool.take() for _ in range(5)] == ["10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.2"]


@given(st.text(max_size=40))
def test_names(sandbox_id: str) -> None:
    name = interface_name(sandbox_id)
    assert len(name) <= 15 and name == interface_name(sandbox_id) != interface_name(sandbox_id + "x")
    first = int(mac_address(sandbox_id).split(":")[0], 16)
    assert first & 1 == 0 and first & 2  # unicast, local


def test_users(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nweb:x:101:102::/srv:/bin/sh\nbroken\n")
    (tmp_path / "etc/group").write_text("www:x:102:\nextra:x:103:web,other\n")
    web = Identity(101, 102, (103,), "/srv")
    for user, uid, gid, expected in (
        ("", None, None, Identity(0, 0, (), "/root")),
        ("web", None, None, Identity(101, 102, (103,), "/srv", "web")),
        ("101", None, None, web),
        ("web:extra", None, None, Identity(101, 103, (), "/srv", "web")),
        ("7:8", None, None, Identity(7, 8)),
        ("web:www", 101, None, web),
        ("web", 0, 5, Identity(0, 5, (), "/root")),
        ("", 1234, None, Identity(1234, 0)),
    ):
        assert resolve(tmp_path, user, uid, gid) == expected
    for user, words in (("nobody", "unable to find user nobody"), ("web:none", "unable to find group none")):
        with pytest.raises(UnknownUser, match=words):
            resolve(tmp_path, user, None, None)
    # an image's passwd that points outside of it does not
    (tmp_path / "evil/etc").mkdir(parents=True)
    (tmp_path / "evil/etc/passwd").symlink_to("/etc/passwd")
    assert resolve(tmp_path / "evil", "0", None, None).home == "/"


def test_words() -> None:
    assert tidy("executable file `x y` not found in $PATH: No such file or directory\n") == (
        'exec: "x y": executable file not found in $PATH'
    )
    assert [signal_number(name) for name in ("SIGQUIT", "quit", "9", "", "odd", "SIGRTMIN+3")] == [3, 3, 9, 15, 15, 37]
