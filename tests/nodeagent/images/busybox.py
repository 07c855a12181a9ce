"""A busybox image made of the machine's own static busybox."""

from __future__ import annotations

import io
import subprocess
import tarfile

import msgspec

from nodeagent.images import archive
from nodeagent.images.store import ImageStore, Record

PASSWD = "root:x:0:0:root:/root:/bin/sh\nweb:x:101:102:web:/home/web:/bin/sh\n"
GROUP = "root:x:0:\nwww:x:102:\nextra:x:103:web\n"


def busybox_layer() -> bytes:
    """The layer as a tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("bin", "etc", "tmp", "home", "home/web", "root"):
            member = tarfile.TarInfo(name)
            member.type, member.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(member)
        with open("/usr/bin/busybox", "rb") as file:
            member = tar.gettarinfo(fileobj=file, arcname="bin/busybox")
            tar.addfile(member, file)
        for applet in subprocess.check_output(["busybox", "--list"], text=True).split():
            if applet == "busybox":
                continue
            member = tarfile.TarInfo(f"bin/{applet}")
            member.type, member.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(member)
        for name, content in (("etc/passwd", PASSWD), ("etc/group", GROUP)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content.encode()))
    return buffer.getvalue()


def busybox_image(store: ImageStore, name: str = "busybox", **config: object) -> Record:
    layer = store.add_blob(io.BytesIO(busybox_layer()))
    document = {
        "architecture": archive.architecture(),
        "os": "linux",
        "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"], **config},
        "rootfs": {"type": "layers", "diff_ids": [layer[0]]},
    }
    blob = store.add_blob(io.BytesIO(msgspec.json.encode(document)))
    return archive.add_image(store, blob, [layer], [name])
