"""How API servers behind this one learn whom to trust: a ConfigMap. (The Role to read it is among the default ones.)

``extension-apiserver-authentication`` in kube-system holds the authority of clients, the authority of the certificate
under which this server passes requests on, and the headers in which it names the user.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from apiserver.config import Config
from apiserver.registry.ensure import MANAGER, ensure
from apiserver.registry.resources import Resources
from apiserver.request import own_context

Tree = dict[str, Any]
NAMESPACE, NAME = "kube-system", "extension-apiserver-authentication"


def data_of(config: Config) -> dict[str, str]:
    """The ConfigMap's data. Raises OSError."""
    out = {}
    if config.client_ca_file:
        out["client-ca-file"] = Path(config.client_ca_file).read_text()
    if config.requestheader_client_ca_file:
        out["requestheader-client-ca-file"] = Path(config.requestheader_client_ca_file).read_text()
        for field in ("allowed_names", "username_headers", "uid_headers", "group_headers", "extra_headers_prefix"):
            key = "requestheader-" + field.replace("_", "-")
            out[key] = json.dumps(list(getattr(config, f"requestheader_{field}")))
    return out


async def publish_authentication(resources: Resources, config: Config) -> None:
    """Makes the ConfigMap, or brings it up to date."""
    head = {"namespace": NAMESPACE, "name": NAME}
    data = data_of(config)
    desired = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": head, "data": data}
    maps = resources["", "configmaps"]
    if not await ensure(maps, desired):

        def change(old: Tree) -> Tree:
            return old | {"data": (old.get("data") or {}) | data}

        await maps.change(own_context(maps.world), NAMESPACE, NAME, change, MANAGER)
