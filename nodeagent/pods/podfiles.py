"""A pod's own folder on the node: the files that every container gets from us (network names, and one for its last
words), and what of them is read back.

Containers write into these files. So their size is never trusted, and no step to them is a symlink.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from navarch.api.types import core_v1
from navarch.linux import syscalls
from nodeagent.config import Config
from nodeagent.linux import trees
from nodeagent.network import netfiles
from nodeagent.pods.observed import AnyContainer
from nodeagent.runtime.runtime import Mount

MAX_MESSAGE = 4096  # bytes
MAX_NODE_FILE = 1 << 20  # of /etc/hosts and resolv.conf as the node has them
_PLAIN_FILE = os.O_NOFOLLOW | os.O_NONBLOCK


def own_mounts(
    config: Config, pod: core_v1.Pod, container: AnyContainer, attempt: int, ip: str, occupied: set[str]
) -> list[Mount]:
    """Writes the files for one container, but for those whose place is ``occupied``; the mounts. Blocks; raises OSError."""
    folder = config.pods_dir / (pod.metadata.uid or "")
    folder.mkdir(parents=True, exist_ok=True)
    node_hosts = _text(Path("/etc/hosts")) if pod.spec.host_network else ""
    resolv = netfiles.resolv_conf(pod, _text(config.resolv_conf), config.cluster_dns, config.cluster_domain)
    name = netfiles.hostname(pod, config.node_name)
    out = []
    for path, text in (
        ("/etc/hosts", netfiles.hosts(pod, [ip], config.cluster_domain, node_hosts, config.node_name)),
        ("/etc/hostname", f"{name}\n"),
        ("/etc/resolv.conf", resolv),
    ):
        if path not in occupied:
            file = path.replace("/etc/", "etc-")
            _write(folder, file, text.encode(), 0o644)
            out.append(Mount(str(folder / file), path))
    words = termination_file(container.name, attempt)
    (folder / words).parent.mkdir(parents=True, exist_ok=True)
    _write(folder, words, b"", 0o666)
    out.append(Mount(str(folder / words), container.termination_message_path or "/dev/termination-log"))
    return out


def termination_file(name: str, attempt: int) -> str:
    """Where a container leaves its last words, below the pod's folder."""
    return f"containers/{name}/{attempt}"


def termination_message(config: Config, uid: str, name: str, attempt: int) -> str:
    """The last words of a container, "" without any. Blocks."""
    try:
        fd = syscalls.open_plain(config.pods_dir / uid, termination_file(name, attempt), os.O_RDONLY | _PLAIN_FILE)
        with os.fdopen(fd, "rb") as file:
            file.seek(max(0, os.fstat(fd).st_size - MAX_MESSAGE))  # its end: the last words count
            return file.read(MAX_MESSAGE).decode(errors="replace")
    except OSError:
        return ""


def remove(config: Config, uid: str, logs: Path) -> None:
    """Everything that the pod left on disk but its volumes, which were torn down before. Blocks; raises OSError."""
    trees.remove(config.pods_dir / uid)
    trees.remove(logs)


def remove_logs(path: str) -> None:
    """A container's log and those that were rotated. Blocks; raises OSError."""
    file = Path(path)
    for one in sorted(file.parent.glob(f"{file.name}*")):
        trees.remove(one)


def _write(folder: Path, name: str, data: bytes, mode: int) -> None:
    """Writes a file unless it is so already: in place, since containers that run have it mounted."""
    fd = syscalls.open_plain(folder, name, os.O_RDWR | os.O_CREAT | _PLAIN_FILE, mode)
    with os.fdopen(fd, "r+b") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{folder / name} is not a file")
        if status.st_size != len(data) or file.read(len(data)) != data:
            file.seek(0)
            file.truncate()
            file.write(data)
        os.fchmod(fd, mode)


def _text(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_NODE_FILE).decode(errors="replace")
    except OSError:
        return ""
