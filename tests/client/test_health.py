"""The pages that every component serves."""

from __future__ import annotations

import asyncio

from navarch.client.health import health_pages, serving, text_page


async def test_pages_on_a_loopback_port():
    missing = ["caches"]
    pages = health_pages(lambda: "".join(missing), lambda: b"metric 1\n") | {"/echo": lambda query: text_page(query)}

    async def ask(address, line: str) -> tuple[int, str]:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(f"{line} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
        writer.close()
        return int(head.split(" ")[1]), body

    async with serving(pages, ("127.0.0.1", 0)) as address:
        assert await ask(address, "GET /healthz") == (200, "ok")
        assert await ask(address, "GET /readyz?verbose") == (500, "caches")
        missing.clear()
        assert await ask(address, "GET /readyz") == (200, "ok")
        assert await ask(address, "GET /metrics") == (200, "metric 1\n")
        assert await ask(address, "GET /echo?a=b") == (200, "a=b")
        assert (await ask(address, "GET /nope"))[0] == 404
        assert (await ask(address, "POST /healthz"))[0] == 405
        assert (await ask(address, "nonsense"))[0] in (400, 404)
