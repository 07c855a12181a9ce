"""Merging a lab's kubeconfig into the user's own, when asked to."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import yaml

from lab.components import apiserver_hosts
from lab.paths import LabError, LabRecord, write_private
from lab.ports import place


def for_elsewhere(path: Path, record: LabRecord, server: str) -> str:
    """The lab's kubeconfig with a server that other machines can reach. Raises LabError if it would not work there."""
    names = apiserver_hosts(record)
    if not record.listen or server not in names:
        allowed = ", ".join(record.names) or "none yet"
        raise LabError(
            f"{server}: other machines do not reach the API server under that name (names: {allowed}); "
            "use: navarch up --listen ADDRESS [--name NAME]"
        )
    config = json.loads(path.read_text())
    for entry in config["clusters"]:
        entry["cluster"]["server"] = f"https://{place(server, record.port)}"
    return json.dumps(config, indent=2)


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
