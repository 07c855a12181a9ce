"""Where the agent, the CNI plugin and containerd find each other, below a node's run directory."""

from __future__ import annotations

from pathlib import Path

PAUSE_IMAGE = "localhost/navarch/pause:1"


def cni_socket(run_dir: Path) -> Path:
    """Where our CNI plugin asks the agent."""
    return run_dir / "cni.sock"


def containerd_socket(run_dir: Path) -> Path:
    """Where the lab's containerd listens."""
    return run_dir / "containerd.sock"
