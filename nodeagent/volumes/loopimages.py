"""Volumes that are one file with a file system in it: of a size that holds, whoever writes. Mounted by a loop device.

The class ``local-loop`` makes them (controllers/persistentvolume/localpath.py). A file has one loop device however often it is
mounted (util-linux sees to it), and the kernel takes the device away with the last mount.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from nodeagent.linux import trees
from nodeagent.pods.fieldrefs import ConfigError

TIMEOUT = 120.0  # seconds
REPAIRED = 1  # e2fsck's exit code when it has mended something


def is_image(path: str) -> bool:
    return os.path.isfile(path)


def mount(image: str, target: Path, has_grown: bool) -> bool:
    """Mounts the file system of an image; checked first, and grown if the file has, unless another pod has it mounted.

    Returns true if it was grown. (A mounted one could be, too, but not by everybody who is root in a container.) Raises
    ConfigError, OSError."""
    target.mkdir(mode=0o750, parents=True, exist_ok=True)
    if os.path.realpath(target) in trees.mounts_below(os.path.realpath(target.parent)):
        return False
    is_free = not _device(image)
    if is_free:
        _run("e2fsck", "-p", *(["-f"] if has_grown else []), image, good=REPAIRED)
        if has_grown:
            _run("resize2fs", image)
            _run("debugfs", "-w", "-R", "rmdir lost+found", image)  # which the check has made again; not if something is in it
    _run("mount", "-t", "ext4", "-o", "loop,nodev", image, str(target))
    return is_free and has_grown


def _device(image: str) -> str:
    """The loop device that has the image; "" if none has."""
    return _run("losetup", "--associated", image, "--noheadings", "--output", "NAME").strip()


def _run(*command: str, good: int = 0) -> str:
    environment = os.environ | {"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin", "LC_ALL": "C"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, env=environment)
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{command[0]}: {error}") from error
    if done.returncode > good:
        raise ConfigError(f"{' '.join(command)}: {' '.join((done.stderr + done.stdout).split())}")
    return done.stdout
