"""/logs/ of a node: the folder of its logs, as kubelet serves /var/log. Folders are lists of links.

Symlinks are not followed: pods may be able to write there.
"""

from __future__ import annotations

import errno
import html
import mimetypes
import os
import stat
import urllib.parse
from pathlib import Path

from aiohttp import web

from navarch.linux import syscalls
from navarch.world import World


async def redirect(request: web.Request) -> web.StreamResponse:
    raise web.HTTPMovedPermanently("/logs/")


async def serve(world: World, root: Path, request: web.Request) -> web.StreamResponse:
    """The file or folder below ``root`` that the path names."""
    path = request.match_info["path"]
    try:
        fd = await world.blocking(syscalls.open_plain, root, path.strip("/"), os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            raise web.HTTPForbidden(text="403 Forbidden") from None
        raise web.HTTPNotFound(text="404 page not found") from None
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            if path and not path.endswith("/"):
                raise web.HTTPMovedPermanently(f"{urllib.parse.quote(path.rsplit('/', 1)[-1])}/")
            return web.Response(text=await world.blocking(listing, fd), content_type="text/html", charset="utf-8")
        if not stat.S_ISREG(mode) or path.endswith("/"):
            raise web.HTTPNotFound(text="404 page not found")
        kind = mimetypes.guess_type(path)[0] or "text/plain; charset=utf-8"
        response = web.FileResponse(f"/proc/self/fd/{fd}", headers={"Content-Type": kind})
        await response.prepare(request)
        return response
    finally:
        os.close(fd)


def listing(folder: int) -> str:
    """The names in a folder as Go's file server shows them."""
    lines = []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            name = entry.name + ("/" if entry.is_dir(follow_symlinks=False) else "")
            lines.append(f'<a href="{html.escape(urllib.parse.quote(name))}">{html.escape(name)}</a>\n')
    return "<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n" + "".join(lines) + "</pre>\n"
