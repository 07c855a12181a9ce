"""Merging a lab's kubeconfig into the user's own, when asked to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from lab.paths import LabError, write_private


def merge_into_user_config(path: Path) -> Path:
    """Puts the lab's cluster, user and context into ~/.kube/config (or the first file of $KUBECONFIG).

    Entries of the same name are replaced, everything else stays. Users are renamed after the lab.
    """
    named = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
    target = Path(named) if named and Path(named) != path else Path.home() / ".kube" / "config"
    lab = yaml.safe_load(path.read_text())
    try:
        mine: dict[str, Any] = yaml.safe_load(target.read_text()) or {}
    except FileNotFoundError:
        mine = {}
    except yaml.YAMLError as error:
        raise LabError(f"{target} is no valid YAML; nothing was changed: {error}") from error
    context = lab["contexts"][0]
    context["context"]["user"] = lab["users"][0]["name"] = context["name"]
    for section in ("clusters", "users", "contexts"):
        names = {entry["name"] for entry in lab[section]}
        mine[section] = [e for e in mine.get(section) or [] if e.get("name") not in names] + lab[section]
    mine |= {"apiVersion": "v1", "kind": "Config", "current-context": lab["current-context"]}
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(target, yaml.safe_dump(mine, sort_keys=False))
    return target
