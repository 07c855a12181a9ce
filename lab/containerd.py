"""The lab's containerd: one in each real node, beside the agent that drives it (`navarch up --runtime containerd`).

It lives in the node's namespaces and control group, so its shims, mounts and containers end with the node. Images and layers
are in the node's folder, all else in its /run.
"""

from __future__ import annotations

import shutil

from lab.forking import Spec
from lab.namespaces import ProcessId
from lab.nodenamespaces import NODE_RUN, group
from lab.paths import LabError, LabPaths, NodeRecord, private_directory

OCI, CONTAINERD = "oci", "containerd"
RUNTIMES = (OCI, CONTAINERD)
NODE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def check(runtime: str) -> None:
    """Whether the machine has what the runtime needs. Raises LabError."""
    if runtime not in RUNTIMES:
        raise LabError(f"--runtime {runtime}: use {' or '.join(RUNTIMES)}")
    if runtime == CONTAINERD:
        missing = [name for name in ("containerd", "ctr", "runc") if shutil.which(name, path=NODE_PATH) is None]
        if missing:
            raise LabError(f"{', '.join(missing)} not installed: apt-get install containerd runc")


def component(node: str) -> str:
    """The component's name."""
    return f"containerd/{node}"


def containerd(paths: LabPaths, node: NodeRecord, init: ProcessId) -> Spec:
    return Spec(
        name=component(node.name),
        module="nodeagent.runtime.cri.containerd",
        argv=[
            "--root", str(private_directory(paths.nodes / node.name) / "containerd"),
            "--state", f"{NODE_RUN}/containerd",
            "--socket", f"{NODE_RUN}/containerd.sock",
            "--run-dir", NODE_RUN,
        ],
        log=str(paths.logs / f"containerd-{node.name}.log"),
        cgroup=f"{group(paths.id, node.name)}/sys",
        node=init.dump(),
    )  # fmt: skip
