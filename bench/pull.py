"""Measures pulls from a local registry against skopeo's.

    python -m bench.pull [--layers N] [--megabytes M] [--runs R]

Starts Debian's docker-registry on loopback with an image of N gzip layers of M MB each (half of it compressible, 1,000 small
files and one large one a layer), and prints for each way the seconds (the least and the median of R runs), MB of blobs a
second, and CPU seconds. skopeo copies blobs to a folder, and tar unpacks them there; navarch's pull ends with layers that
containers can stand on; "fetch" is that without the unpacking. Needs root, and nothing else on the machine.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from navarch.egress import Egress
from navarch.world import RealWorld
from nodeagent.images import archive
from nodeagent.images.credentials import Login
from nodeagent.images.distribution import Repository, Transport
from nodeagent.images.pull import Progress, Puller
from nodeagent.images.push import push
from nodeagent.images.reference import parse
from nodeagent.images.registries import Endpoint, Registries
from nodeagent.images.store import ImageStore, Record
from tests.nodeagent.images.realregistry import docker_registry

WORLD = RealWorld(brief=True)
CLOSED = Egress("a benchmark stays on the machine")


def layer(seed: int, megabytes: int) -> bytes:
    chance = random.Random(seed)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as out:
        for n in range(1000):
            member = tarfile.TarInfo(f"layer{seed}/folder{n % 20}/file{n}")
            data = chance.randbytes(300) + b"text " * 100
            member.size = len(data)
            out.addfile(member, io.BytesIO(data))
        member = tarfile.TarInfo(f"layer{seed}/large")
        half = (megabytes << 20) // 2
        data = chance.randbytes(half) + b"lines of text\n" * (half // 14)
        member.size = len(data)
        out.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def make_image(store: ImageStore, count: int, megabytes: int) -> Record:
    blobs, diff_ids = [], []
    for seed in range(count):
        plain = layer(seed, megabytes)
        digest, _ = store.add_blob(io.BytesIO(plain))
        diff_ids.append(digest)
        blobs.append(store.add_blob(io.BytesIO(gzip.compress(plain, 6))))
    config = {"architecture": archive.architecture(), "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    return archive.add_image(store, store.add_blob(io.BytesIO(json.dumps(config).encode())), blobs, ["localhost/bench"])


async def with_transport(work: Callable[[Transport], object]) -> None:
    transport = Transport(WORLD, CLOSED)
    try:
        await work(transport)  # type: ignore[misc]
    finally:
        await transport.close()


def measure(what: str, size: int, runs: int, work: Callable[[Path], None]) -> None:
    seconds, cpu = [], []
    for _ in range(runs):
        with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as scratch:
            subprocess.run(["sync"], check=True)
            before = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
            start = time.perf_counter()
            work(Path(scratch))
            seconds.append(time.perf_counter() - start)
            after = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
            cpu.append(sum(a.ru_utime + a.ru_stime - b.ru_utime - b.ru_stime for a, b in zip(after, before, strict=True)))
    least, middle = min(seconds), statistics.median(seconds)
    print(f"{what:28} {least:6.2f} s  {middle:6.2f} s  {size / middle / 1e6:7.1f} MB/s  cpu {min(cpu):5.2f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=40)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, docker_registry(Path(folder) / "registry") as address:
        origin = ImageStore(Path(folder) / "origin")
        record = make_image(origin, options.layers, options.megabytes)
        name = parse(f"{address}/bench:1")

        async def send(transport: Transport) -> None:
            await push(origin, record, name, Repository(transport, Endpoint(address, "bench")), Progress())

        WORLD.run(lambda: with_transport(send))
        shutil.rmtree(origin.root)
        print(f"{options.layers} layers, {record.size / 1e6:.1f} MB of blobs; least, median of {options.runs} runs")
        line = ["skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{address}/bench:1"]
        measure("skopeo copy to dir:", record.size, options.runs, lambda d: subprocess.run([*line, f"dir:{d}/x"], check=True))

        def unpacked(folder: Path) -> None:
            subprocess.run([*line, f"dir:{folder}/x"], check=True)
            for blob in json.loads((folder / "x/manifest.json").read_bytes())["layers"]:
                root = folder / blob["digest"]
                root.mkdir()
                archived = folder / "x" / blob["digest"].removeprefix("sha256:")
                subprocess.run(["tar", "-xzf", archived, "-C", root], check=True)

        measure("skopeo copy, then tar", record.size, options.runs, unpacked)

        def ours(folder: Path, unpack: bool) -> None:
            store = ImageStore(folder / "store")
            if not unpack:
                store.add_layer = lambda diff_id, blob: store.layer(diff_id)  # type: ignore[method-assign]
            logins: list[Login] = []

            async def work(transport: Transport) -> None:
                await Puller(WORLD, store, transport, Registries).pull(str(name), logins)

            WORLD.run(lambda: with_transport(work))

        measure("navarch, fetch", record.size, options.runs, lambda d: ours(d, False))
        measure("navarch, pull", record.size, options.runs, lambda d: ours(d, True))


if __name__ == "__main__":
    main()
