"""Load on HTTP addresses: half over new connections, half over kept ones, no retries. Run as a program.

python load.py --rate 50 http://10.1.2.3:80/version ...     until SIGTERM or --seconds; prints one JSON object
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import time
from urllib.parse import urlsplit


class Load:
    def __init__(self, urls: list[str], rate: float) -> None:
        self.urls, self.rate = urls, rate
        self.sent = 0
        self.bodies: dict[str, int] = {}
        self.failures: list[str] = []
        self.slowest = 0.0

    async def run(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        loop.call_later(seconds, stop.set)
        # Each address gets the whole rate: half of it by two kept connections, half by new ones.
        period = 1 / (self.rate / 4)
        print("ready", flush=True)
        async with asyncio.TaskGroup() as group:
            for url in self.urls:
                for i in range(4):
                    group.create_task(
                        self.client(url, keep=i % 2 == 0, period=period, offset=i * period / 4, stop=stop)
                    )
        report = {
            "sent": self.sent,
            "failures": self.failures[:50],
            "failed": len(self.failures),
            "slowest": round(self.slowest, 3),
            "bodies": self.bodies,
        }
        print(json.dumps(report), flush=True)

    async def client(self, url: str, keep: bool, period: float, offset: float, stop: asyncio.Event) -> None:
        parts = urlsplit(url)
        streams = None
        due = time.monotonic() + offset
        while not stop.is_set():
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due += period
            self.sent += 1
            began = time.monotonic()
            try:
                async with asyncio.timeout(10):
                    if streams is None:
                        streams = await asyncio.open_connection(parts.hostname, parts.port or 80)
                    close = await self.request(streams, parts.netloc, parts.path or "/", keep)
            except Exception as error:
                self.failures.append(f"{url} {'kept' if keep else 'new'}: {type(error).__name__} {error}")
                close = True
            self.slowest = max(self.slowest, time.monotonic() - began)
            if close and streams is not None:
                streams[1].close()
                streams = None
        if streams is not None:
            streams[1].close()

    async def request(self, streams, host: str, path: str, keep: bool) -> bool:
        """One request; True if the connection is to be closed after it."""
        reader, writer = streams
        wish = "keep-alive" if keep else "close"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: {wish}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.split("content-length:")[1].split("\r\n")[0])
        body = await reader.readexactly(length)
        status = int(head.split(" ")[1])
        if status != 200:
            raise ValueError(f"status {status}: {body[:100]!r}")
        version = body.decode().split()[0]
        self.bodies[version] = self.bodies.get(version, 0) + 1
        return "connection: close" in head


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=50, help="requests per second to each address")
    parser.add_argument("--seconds", type=float, default=120, help="stop after this long at the latest")
    parser.add_argument("urls", nargs="+")
    options = parser.parse_args()
    asyncio.run(Load(options.urls, options.rate).run(options.seconds))


if __name__ == "__main__":
    main()
