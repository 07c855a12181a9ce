"""What strangers may send: images with trees, numbers and names of any size, and registries that send us elsewhere."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from navarch.api.types import core_v1
from navarch.egress import Egress
from navarch.world import RealWorld
from nodeagent.images import credentials, layers
from nodeagent.images.distribution import RegistryError, Repository, Transport
from nodeagent.images.inward import OutwardResolver
from nodeagent.images.reference import parse
from nodeagent.images.registries import Endpoint
from nodeagent.images.store import ImageStore, size_of

IMAGE = "sha256:" + "0" * 64


def tar(*members: tarfile.TarInfo) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            archive.addfile(member)
    out.seek(0)
    return out


def entry(name: str, **fields: Any) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(member, key, value)
    return member


def long_names(count: int) -> io.BytesIO:
    """Headers of headers: each says that the next one has a long name."""
    head = entry("././@LongLink", type=tarfile.GNUTYPE_LONGNAME, size=2).tobuf(tarfile.GNU_FORMAT)
    return io.BytesIO((head + b"x\0" + bytes(510)) * count + bytes(1024))


@pytest.mark.parametrize(
    "stream",
    [
        tar(entry("a", pax_headers={"mtime": "1e400"})),
        tar(entry("a", type=tarfile.DIRTYPE, pax_headers={"mtime": "nan"})),
        tar(entry("a", type=tarfile.SYMTYPE, pax_headers={"linkpath": "x\0y"})),
        tar(entry("d/" * 1500 + "x")),
        long_names(2000),
    ],
    ids=["endless time", "no time", "zero byte", "deep", "headers of headers"],
)
def test_a_layer_that_the_machine_cannot_have_is_a_value_error(stream: io.BytesIO, tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        layers.extract(stream, tmp_path, 1 << 24)


def test_an_image_with_a_deep_tree_can_be_measured_and_removed(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    with store.temporary() as place:
        layers.extract(tar(*(entry("d/" * depth, type=tarfile.DIRTYPE) for depth in range(1, 1800))), Path(place))
        assert size_of(Path(place)) > 0
    assert not Path(place).exists()


def test_a_name_that_is_longer_than_a_files_is_kept(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    names = ["r.example.com/" + "a/" * 80 + "b:v1", "r.example.com/" + "a" * 200 + ":" + "t" * 128]
    for name in names:
        assert store.find(name) is None and not store.untag(name)
        store.tag(name, IMAGE)
        assert store.names() == {IMAGE: [name]}
        assert store.untag(name) and store.names() == {}


OUTSIDE = Endpoint("r.example.com", "app")


@pytest.mark.parametrize(
    ("endpoint", "place", "allowed"),
    [
        (OUTSIDE, "https://cdn.example.com/x", True),
        (OUTSIDE, "http://169.254.169.254/latest/meta-data", False),
        (OUTSIDE, "http://127.0.0.1:2379/v3", False),
        (OUTSIDE, "http://localhost./x", False),
        (OUTSIDE, "http://[::ffff:127.0.0.1]/x", False),
        (OUTSIDE, "http://0.0.0.0/x", False),
        (OUTSIDE, "http://[fe80::1]/x", False),
        (Endpoint("127.0.0.1:5000", "app"), "http://127.0.0.1:5001/token", True),
        (Endpoint("r.example.com", "app", insecure=True), "http://127.0.0.1:5001/token", True),
    ],
)
def test_no_registry_from_outside_sends_us_to_this_machine(endpoint: Endpoint, place: str, allowed: bool) -> None:
    repository = Repository(Transport(RealWorld(), Egress()), endpoint)
    if allowed:
        repository._is_sent_outward(URL(place))
    else:
        with pytest.raises(RegistryError, match="which is this machine or on its link"):
            repository._is_sent_outward(URL(place))


def test_nor_by_a_name_that_means_it() -> None:
    async def main() -> None:
        resolver = OutwardResolver()
        with pytest.raises(OSError, match="is this machine"):
            await resolver.resolve("127.1", 80)  # resolvers take it for 127.0.0.1
        assert await resolver.resolve("localhost", 80)  # the machine's own proxy, maybe: no registry sends us there

    asyncio.run(main())


def secret(text: str) -> core_v1.Secret:
    data = {".dockerconfigjson": base64.b64encode(text.encode()).decode()}
    return core_v1.Secret(type="kubernetes.io/dockerconfigjson", data=data)


def test_pull_secrets_that_make_no_sense_are_passed_over() -> None:
    good = {"auths": {"r.example.com": {"username": "u", "password": "p"}}}
    odd = {"auths": {"https://[::1": good["auths"]["r.example.com"], "r.example.com": {"username": "\ud800"}}}
    secrets = [secret("[" * 100_000), secret(json.dumps(odd)), secret(json.dumps(good))]
    assert credentials.of_secrets(parse("r.example.com/app"), secrets) == [credentials.Login("u", "p")]
