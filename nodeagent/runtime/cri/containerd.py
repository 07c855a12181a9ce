"""Starts containerd for one node: ``python -m nodeagent.runtime.cri.containerd``. Writes its configuration, prepares the
node for it, and becomes it.

Everything of it is below two folders: ``--root`` on disk (images, layers, what containers wrote) and ``--state`` on a tmpfs.
Containers hang on shims, not on containerd: it may end and start at any time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from navarch.linux import syscalls
from nodeagent.runtime import security
from nodeagent.runtime.cri import plugin
from nodeagent.runtime.cri.layout import PAUSE_IMAGE, cni_socket

HANDLERS = ("runc", "crun")  # the first one is the default
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CNI_VERSION = "0.4.0"
# Parts that need kernels, disks or daemons that a node has not, or (opt) write outside of our folders.
DISABLED = (
    "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt", "io.containerd.internal.v1.restart",
    "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
)  # fmt: skip


def configuration(root: Path, folder: Path, socket: Path) -> str:
    """containerd's config.toml."""
    programs = {name: path for name in HANDLERS if (path := shutil.which(name, path=PATH))}
    if not programs:
        raise SystemExit("neither runc nor crun is installed: run deploy/setup")
    runtimes = "".join(
        f"""
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{name}]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{name}.options]
BinaryName = {json.dumps(path)}
"""
        for name, path in programs.items()
    )
    restricted = "CAP_SYS_RESOURCE" not in security.available_capabilities()
    return f"""version = 2
root = {json.dumps(str(root))}
state = {json.dumps(str(folder / "state"))}
disabled_plugins = {json.dumps(DISABLED)}
[grpc]
address = {json.dumps(str(socket))}
[debug]
level = "warn"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
stream_server_address = "127.0.0.1"
stream_server_port = "0"
restrict_oom_score_adj = {str(restricted).lower()}
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = {json.dumps(str(folder / "cni/bin"))}
conf_dir = {json.dumps(str(folder / "cni/conf"))}
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "{next(iter(programs))}"
{runtimes}"""


def write_cni(folder: Path, socket: Path) -> None:
    """The network's configuration, and the plugins that it names: ours, and the one that every runtime wants for loopback,
    which ours has done already."""
    for name in ("bin", "conf"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    network = {
        "cniVersion": CNI_VERSION,
        "name": "navarch",
        "plugins": [{"type": "navarch-cni", "socket": str(socket), "capabilities": {"portMappings": True}}],
    }
    script = f'#!/bin/sh\nexec "{sys.executable}" -I -S "{Path(plugin.__file__).absolute()}"\n'
    loopback = f'#!/bin/sh\necho \'{{"cniVersion": "{CNI_VERSION}"}}\'\n'
    syscalls.write_atomic(folder / "conf/10-navarch.conflist", json.dumps(network).encode())
    for name, text in (("navarch-cni", script), ("loopback", loopback)):
        syscalls.write_atomic(folder / "bin" / name, text.encode())
        (folder / "bin" / name).chmod(0o755)


def share_mounts() -> None:
    """Lets mounts propagate between the node and containers that ask for it, as every Linux host has it."""
    with open("/proc/self/mountinfo") as file:
        root = [line for line in file if line.split()[4] == "/"][-1]
    if " shared:" not in root:
        syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_SHARED)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m nodeagent.runtime.cri.containerd", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="images and layers, on a disk")
    parser.add_argument("--state", type=Path, required=True, help="what may not outlive a reboot, on a tmpfs")
    parser.add_argument("--socket", type=Path, required=True, help="where it listens")
    parser.add_argument("--run-dir", type=Path, required=True, help="the agent's run directory")
    args = parser.parse_args(argv)
    program = shutil.which("containerd", path=PATH)
    if program is None:
        raise SystemExit("containerd is not installed: run deploy/setup, or apt-get install containerd runc")
    root: Path = args.root
    root.mkdir(parents=True, exist_ok=True)
    if syscalls.filesystem_type(root) == syscalls.OVERLAY_MAGIC:  # it cannot be the upper side of another overlay
        root = args.state / "root"
    args.state.mkdir(parents=True, exist_ok=True)
    write_cni(args.state / "cni", cni_socket(args.run_dir))
    share_mounts()
    file = args.state / "config.toml"
    syscalls.write_atomic(file, configuration(root, args.state, args.socket).encode())
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # containers inherit it
    most = min(hard, security.open_files())
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.environ["PATH"] = PATH
    os.execv(program, [program, "--config", str(file)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
