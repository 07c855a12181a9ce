"""Logs, exec streams, authentication and status patches."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from navarch.api.types import core_v1
from navarch.world import RealWorld
from nodeagent.node import statuswriter
from nodeagent.pods.probes import Counter
from nodeagent.server import logs, nodelogs, streams
from nodeagent.server.auth import Caller, of_certificate, subresource
from nodeagent.server.logs import BadOption, Options

LINES = [
    "2026-01-01T00:00:01.000000001Z stdout F one",
    "2026-01-01T00:00:02.5Z stderr F two",
    "2026-01-01T00:00:03Z stdout P thr",
    "2026-01-01T00:00:03Z stdout F ee",
]


async def whole(path: Path, options: Options) -> str:
    return b"".join([piece async for piece in logs.read(RealWorld(), str(path), options)]).decode()


def test_reading_logs(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_text("\n".join(LINES) + "\n")

    async def main() -> None:
        assert await whole(path, Options()) == "one\ntwo\nthree\n"
        assert await whole(path, Options(tail=1)) == "ee\n"
        assert await whole(path, Options(tail=0)) == ""
        assert await whole(path, Options(tail=99)) == "one\ntwo\nthree\n"
        assert await whole(path, Options(limit=5)) == "one\nt"
        assert await whole(path, Options(stream="stderr")) == "two\n"
        assert await whole(path, Options(since=1767225602.2)) == "two\nthree\n"
        assert (await whole(path, Options(timestamps=True))).startswith("2026-01-01T00:00:01.000000001Z one\n")

    RealWorld().run(main)
    assert logs.tail(str(path), 2, 100) == "three\n" and logs.tail(str(path), 80, 3) == "ee\n"


async def test_time_stamps_begin_lines(tmp_path: Path) -> None:
    """A line of a container's that is longer than one of the file has one stamp, whatever is beside it."""
    path = tmp_path / "0.log"
    parts = ["P " + "a" * 8192, "P " + "b" * 8192, "F c", "F d", "P e", "F "]
    path.write_text("".join(f"2026-01-01T00:00:0{n}Z stdout {part}\n" for n, part in enumerate(parts)))

    text = await whole(path, Options(timestamps=True))
    lines = text.splitlines()
    assert [line[:21] for line in lines] == [f"2026-01-01T00:00:0{n}Z " for n in (0, 3, 4)]
    assert lines[0][21:] == "a" * 8192 + "b" * 8192 + "c" and lines[1:] == [lines[1][:21] + "d", lines[2][:21] + "e"]
    assert (await whole(path, Options(timestamps=True, tail=4))).splitlines()[0] == "2026-01-01T00:00:02Z c"
    with path.open("a") as file:
        file.write("2026-01-01T00:00:06Z stdout P x\n2026-01-01T00:00:07Z stderr F y\n2026-01-01T00:00:08Z stdout F z\n")
    out = await whole(path, Options(timestamps=True, stream="stdout", tail=3))
    assert out == "2026-01-01T00:00:06Z xz\n"
    since = await whole(path, Options(timestamps=True, since=1767225603.0))
    assert since.startswith("2026-01-01T00:00:03Z d\n2026-01-01T00:00:04Z e\n")


async def test_logs_are_files_of_the_log_folder(tmp_path: Path) -> None:
    """A pod that has the folder mounted puts links there: they lead nowhere."""
    folder = tmp_path / "logs/ns_pod_uid/a"
    folder.mkdir(parents=True)
    (tmp_path / "secret").write_text(LINES[0] + "\n")
    (folder / "0.log").symlink_to(tmp_path / "secret")
    (folder.parent / "b").symlink_to(tmp_path)
    os.mkfifo(folder / "1.log")

    for path in (folder / "0.log", folder.parent / "b/secret"):
        with pytest.raises(OSError, match="openat2"):
            await whole(path, Options())
        assert logs.tail(str(path), 5, 100) == ""
    assert await whole(folder / "1.log", Options()) == ""  # and nobody waits for a writer


def test_logs_of_the_node(tmp_path: Path) -> None:
    (tmp_path / "pods/x y").mkdir(parents=True)
    (tmp_path / "agent.log").write_text("one\ntwo\n")
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "up").symlink_to("..")

    async def main() -> None:
        app = web.Application()
        app.router.add_get("/logs", nodelogs.redirect)
        app.router.add_get("/logs/{path:.*}", lambda request: nodelogs.serve(RealWorld(), tmp_path, request))
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with aiohttp.ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as session:

            async def get(path: str, **headers: str) -> tuple[int, str]:
                async with session.get(path, headers=headers, allow_redirects=False) as answer:
                    return answer.status, await answer.text()

            status, text = await get("/logs/")
            assert status == 200 and '<a href="agent.log">agent.log</a>\n' in text and '<a href="pods/">pods/</a>\n' in text
            assert await get("/logs/agent.log") == (200, "one\ntwo\n")
            assert await get("/logs/agent.log", Range="bytes=4-6") == (206, "two")
            assert "x%20y/" in (await get("/logs/pods/"))[1] and (await get("/logs/pods"))[0] == 301 == (await get("/logs"))[0]
            for path in ("link", "up/", "none", "agent.log/", "%2e%2e/", "pods/..%2f..%2fetc/passwd"):
                assert (await get(f"/logs/{path}"))[0] == 404, path
        await runner.cleanup()

    RealWorld().run(main)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["", "x", "a longer line " * 30]), max_size=40), st.integers(0, 50), st.booleans())
def test_tail_is_the_last_lines(tmp_path_factory: pytest.TempPathFactory, lines: list[str], n: int, ended: bool) -> None:
    path = tmp_path_factory.mktemp("l") / "f"
    text = "".join(f"{line}\n" for line in lines)
    if not ended:
        text = text.removesuffix("\n")
    path.write_text(text)
    with open(path, "rb") as file:
        file.seek(logs.tail_offset(file.fileno(), n))
        kept = file.read().decode()
    assert kept == "".join(text.splitlines(keepends=True)[-n:] if n else [])


async def test_following_over_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_text(LINES[0] + "\n")

    ended = asyncio.Event()
    seen: list[bytes] = []
    more = asyncio.Event()

    async def follow() -> None:
        async for piece in logs.read(RealWorld(), str(path), Options(follow=True), ended):
            seen.append(piece)
            more.set()

    task = asyncio.ensure_future(follow())

    async def until(text: bytes) -> None:
        async with asyncio.timeout(5):
            while b"".join(seen) != text:
                more.clear()
                await more.wait()

    await until(b"one\n")
    with path.open("a") as file:
        file.write(LINES[1] + "\n")
    await until(b"one\ntwo\n")
    path.rename(tmp_path / "0.log.1")
    path.write_text(LINES[2] + "\n" + LINES[3] + "\n")
    await until(b"one\ntwo\nthree\n")
    ended.set()
    await asyncio.wait_for(task, 5)


def test_log_options() -> None:
    assert Options.parse({"follow": "true", "tailLines": "5", "sinceSeconds": "10"}, 100.0) == Options(
        follow=True, tail=5, since=90.0
    )
    for bad in ({"tailLines": "-1"}, {"sinceSeconds": "x"}, {"sinceTime": "now"}, {"limitBytes": "0"}):
        with pytest.raises(BadOption):
            Options.parse(bad, 100.0)


class Echo:
    """A process that says back what it is told, and ends with code 4 when its input ends."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[bytes] = asyncio.Queue()
        self.size = (0, 0)
        self.closed = False

    async def write(self, data: bytes) -> None:
        self.queue.put_nowait(data)

    async def close_stdin(self) -> None:
        self.queue.put_nowait(b"")

    async def read(self) -> AsyncIterator[tuple[int, bytes]]:
        while data := await self.queue.get():
            yield (2 if data.startswith(b"!") else 1), data

    async def resize(self, width: int, height: int) -> None:
        self.size = width, height

    async def wait(self) -> int:
        return 4

    async def close(self) -> None:
        self.closed = True


def test_remote_command() -> None:
    world = RealWorld()

    async def main() -> None:
        process = Echo()

        async def handler(request: web.Request) -> web.StreamResponse:
            return await streams.serve(request, world, process, ["x"], stdin=True, tty=False)

        app = web.Application()
        app.router.add_get("/", handler)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        async with aiohttp.ClientSession() as session, session.ws_connect(url, protocols=streams.PROTOCOLS) as socket:
            assert socket.protocol == "v5.channel.k8s.io"
            assert await socket.receive_bytes() == b"\x01"
            await socket.send_bytes(b'\x04{"Width": 80, "Height": 24}')
            await socket.send_bytes(b"\x00hello")
            assert await socket.receive_bytes() == b"\x01hello"
            await socket.send_bytes(b"\x00!oops")
            assert await socket.receive_bytes() == b"\x02!oops"
            await socket.send_bytes(b"\xff\x00")  # ends its input
            final = await socket.receive_bytes()
            assert final[0] == 3 and json.loads(final[1:])["details"]["causes"][0]["message"] == "4"
            assert (await socket.receive()).type == aiohttp.WSMsgType.CLOSE
        await runner.cleanup()
        assert process.size == (80, 24) and process.closed

    world.run(main)


def test_callers() -> None:
    subject = ((("organizationName", "system:masters"),), (("commonName", "admin"),))
    assert of_certificate({"subject": subject}) == Caller("admin", ("system:masters", "system:authenticated"))
    assert of_certificate({}) is None
    assert [subresource(p) for p in ("/stats/summary", "/metrics", "/exec/a/b/c", "/pods")] == [
        "stats", "metrics", "proxy", "pods",
    ]  # fmt: skip


def test_status_patch() -> None:
    old = core_v1.PodStatus(
        phase="Pending",
        reason="x",
        conditions=[
            core_v1.PodCondition(type="Ready", status="False", reason="ContainersNotReady", message="m"),
            core_v1.PodCondition(type="example.org/own", status="True"),
        ],
    )
    new = core_v1.PodStatus(
        phase="Running",
        pod_ips=[core_v1.PodIP(ip="10.1.0.2")],
        conditions=[
            core_v1.PodCondition(type="Ready", status="True"),
            core_v1.PodCondition(type="example.org/own", status="True"),
        ],
    )
    assert statuswriter.patch(old, new) == {
        "phase": "Running",
        "reason": None,
        "podIPs": [{"ip": "10.1.0.2"}, {"$patch": "replace"}],
        "conditions": [{"type": "Ready", "status": "True", "reason": None, "message": None}],
    }
    assert statuswriter.patch(new, new) == {}


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 3), st.integers(1, 3))
def test_probe_counter(answers: list[bool], success: int, failure: int) -> None:
    """The verdict is the last run of equal answers that was long enough."""
    counter = Counter(success, failure)
    verdict: bool | None = None
    for i, answer in enumerate(answers):
        counter.answer(answer)
        need = success if answer else failure
        if answers[max(0, i + 1 - need) : i + 1] == [answer] * need:
            verdict = answer
        assert counter.verdict == verdict
