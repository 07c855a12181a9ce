"""The guestbook's web front end: a small HTTP/1.1 server on asyncio that keeps its entries in Redis.

    GET  /           the page
    GET  /entries    all entries as JSON, read from a follower
    POST /entries    adds an entry (the body, UTF-8), written to the leader
    GET  /version    version and host name
    GET  /healthz    the process is alive
    GET  /readyz     it can serve: not shutting down, and a follower answers

It shuts down as a server behind a Kubernetes Service should: after SIGTERM it goes on answering, tells every client
on its next answer to close the connection, and ends when no connection is left. DRAIN=no makes it end at once instead,
as many programs do: roll it out under load to see what that costs.
"""

import asyncio
import html
import json
import os
import signal
import socket

VERSION = os.environ.get("VERSION", "v0")
COLOUR = os.environ.get("COLOUR", "#444")
LEADER = os.environ.get("REDIS_LEADER", "redis-leader")
FOLLOWER = os.environ.get("REDIS_FOLLOWER", "redis-follower")
PORT = int(os.environ.get("PORT", "8080"))
DRAIN = os.environ.get("DRAIN", "yes") != "no"
KEY = "guestbook"
MAX_BODY = 64 * 1024

PAGE = """<!doctype html><meta charset="utf-8"><title>Guestbook {version}</title>
<style>body{{font:16px sans-serif;max-width:40em;margin:3em auto;color:#222}}h1{{color:{colour}}}
li{{margin:.3em 0}}input{{width:70%;padding:.4em}}button{{padding:.4em 1em}}small{{color:#777}}</style>
<h1>Guestbook <small>{version}</small></h1>
<form onsubmit="fetch('/entries',{{method:'POST',body:t.value}}).then(()=>location.reload());return false">
<input id="t" placeholder="Write something" autofocus> <button>Sign</button></form>
<ul>{entries}</ul><p><small>served by {host}</small></p>
"""


class Redis:
    """One request at a time over one connection, opened again when it broke. RESP, as much of it as a list needs."""

    def __init__(self, host):
        self.host, self.lock, self.streams = host, asyncio.Lock(), None

    async def call(self, *words):
        async with self.lock:
            for attempt in (1, 2):
                try:
                    async with asyncio.timeout(2):
                        if self.streams is None:
                            self.streams = await asyncio.open_connection(self.host, 6379)
                        reader, writer = self.streams
                        parts = [w.encode() for w in words]
                        writer.write(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts))
                        return await self.reply(reader)
                except (OSError, EOFError, TimeoutError):
                    if self.streams is not None:
                        self.streams[1].close()
                        self.streams = None
                    if attempt == 2:
                        raise

    async def reply(self, reader):
        line = await reader.readuntil(b"\r\n")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else (await reader.readexactly(int(rest) + 2))[:-2].decode(errors="replace")
        if kind == b"*":
            return [await self.reply(reader) for _ in range(int(rest))]
        raise OSError(rest.decode())


class Server:
    def __init__(self):
        self.leader, self.follower = Redis(LEADER), Redis(FOLLOWER)
        self.stopping, self.idle, self.open = asyncio.Event(), asyncio.Event(), 0

    async def answer(self, method, path, body):
        """(status, type, body) of a request."""
        text = "text/plain; charset=utf-8"
        if path == "/healthz":
            return 200, text, "ok\n"
        if path == "/version":
            return 200, text, f"{VERSION} {socket.gethostname()}\n"
        try:
            if path == "/readyz":
                await self.follower.call("PING")
                return (503, text, "stopping\n") if self.stopping.is_set() else (200, text, "ok\n")
            if path == "/entries" and method == "POST":
                entry = body.decode(errors="replace").strip()
                if not entry:
                    return 400, text, "an entry needs some text\n"
                await self.leader.call("RPUSH", KEY, entry)
                return 201, text, "written\n"
            if path in ("/", "/entries"):
                entries = await self.follower.call("LRANGE", KEY, "-100", "-1")
                if path == "/entries":
                    return 200, "application/json", json.dumps(entries) + "\n"
                listed = "".join(f"<li>{html.escape(e)}</li>" for e in entries)
                page = PAGE.format(version=VERSION, colour=COLOUR, entries=listed, host=socket.gethostname())
                return 200, "text/html; charset=utf-8", page
        except (OSError, EOFError, TimeoutError) as error:
            return 503, text, f"redis does not answer: {error}\n"
        return 404, text, "not found\n"

    async def connection(self, reader, writer):
        self.open += 1
        self.idle.clear()
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, path, protocol = head[0].split(" ")
                headers = {k.strip().lower(): v.strip() for k, _, v in (h.partition(":") for h in head[1:] if h)}
                length = int(headers.get("content-length", 0))
                if length > MAX_BODY:
                    writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                    return
                body = await reader.readexactly(length)
                status, kind, text = await self.answer(method, path.partition("?")[0], body)
                asked = headers.get("connection", "keep-alive" if protocol == "HTTP/1.1" else "close").lower()
                close = asked == "close" or self.stopping.is_set()
                data = text.encode()
                writer.write(
                    f"HTTP/1.1 {status} {'OK' if status < 400 else 'Error'}\r\nContent-Type: {kind}\r\n"
                    f"Content-Length: {len(data)}\r\nConnection: {'close' if close else 'keep-alive'}\r\n\r\n".encode()
                    + data
                )
                await writer.drain()
                if close:
                    return
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):
            return
        finally:
            writer.close()
            self.open -= 1
            if not self.open:
                self.idle.set()

    async def run(self):
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        server = await asyncio.start_server(self.connection, "0.0.0.0", PORT, backlog=512, limit=MAX_BODY)
        print(f"guestbook {VERSION} listens on port {PORT}", flush=True)
        await self.stopping.wait()
        print("stopping: open connections may finish", flush=True)
        server.close()
        if self.open and DRAIN:
            await self.idle.wait()
        print("stopped", flush=True)


if __name__ == "__main__":
    asyncio.run(Server().run())
