"""RUN: a command in a root file system, in a container without network and without a cgroup of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from nodeagent.images.store import Settings
from nodeagent.runtime import security, spec
from nodeagent.runtime.runtime import ContainerConfig, RuntimeError_, SandboxConfig


def execute(
    root: Path, command: list[str], environment: Mapping[str, str], config: Mapping[str, Any], scratch: Path
) -> int:
    """Runs the command as the image's user in its working directory; the exit code. Output goes to our stderr."""
    shm = scratch / "shm"
    shm.mkdir(exist_ok=True, mode=0o1777)
    namespaces = {kind: "" for kind in ("mount", "pid", "ipc", "uts", "network")}
    around = spec.Surroundings(namespaces, shm=str(shm), open_files=security.open_files())
    settings = Settings(user=config.get("User") or "", working_dir=config.get("WorkingDir") or "")
    container = ContainerConfig("build", 0, "", command=command, env=tuple(environment.items()))
    try:
        document = spec.build(container, SandboxConfig("", "", "build"), settings, root, around, "build")
    except RuntimeError_ as error:
        raise RuntimeError(error.message) from error
    document["mounts"] = [mount for mount in document["mounts"] if mount["type"] != "cgroup"]
    del document["linux"]["resources"], document["linux"]["cgroupsPath"]
    del document["process"]["oomScoreAdj"]
    bundle = scratch / "bundle"
    bundle.mkdir(exist_ok=True)
    (bundle / "config.json").write_bytes(msgspec.json.encode(document))
    line = ["crun", f"--root={scratch / 'crun'}", "--cgroup-manager=disabled", "run", f"--bundle={bundle}"]
    done = subprocess.run([*line, "build"], stdin=subprocess.DEVNULL, stdout=2)
    return done.returncode
