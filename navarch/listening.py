"""Listening sockets that whoever started this process opened for it, in systemd's way (sd_listen_fds(3)).

The lab's supervisor keeps the API server's port open while the server is started again: nobody else can take it meanwhile, and
clients that connect wait instead of being refused.
"""

from __future__ import annotations

import os
import socket

FIRST = 3  # the first descriptor, SD_LISTEN_FDS_START


def environment(count: int) -> dict[str, str]:
    """Variables that tell a process of this number of sockets, from descriptor 3 on. Only it may believe them."""
    return {"LISTEN_FDS": str(count), "LISTEN_PID": str(os.getpid())}


def inherited() -> dict[tuple[str, int], socket.socket]:
    """The sockets that are there for us, by address and port; each can be taken once, for it is closed with its server."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return {}  # set for a process that started us
    count = int(os.environ.pop("LISTEN_FDS", "0"))
    del os.environ["LISTEN_PID"]
    sockets = [socket.socket(fileno=fd) for fd in range(FIRST, FIRST + count)]
    return {s.getsockname()[:2]: s for s in sockets}
