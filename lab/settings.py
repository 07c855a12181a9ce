"""A lab's settings: ``COMPONENT.NAME=VALUE``, as `up --set` takes them, `--unset` takes them back and lab.json keeps them.

Each is checked with the component's own table before anything is started or changed.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from pathlib import Path

from lab.paths import LabError

# Component -> where its table SETTINGS and its function check(settings) are.
MODULES = {
    "apiserver": "apiserver.config",
    "controllers": "controllers.config",
    "scheduler": "scheduler.options",
    "agent": "nodeagent.config",
    "proxy": "proxy.main",
    "hollow": "nodeagent.hollow.options",
}

# What is the lab's own: addresses, files and identities that its parts agree on. Value: what to use instead.
OWN = {
    "apiserver": {
        "bind-address": "use: navarch up --listen ADDRESS",
        **dict.fromkeys(
            ("store", "secure-port", "advertise-address", "cert-dir", "client-ca-file", "tls-cert-file",
             "tls-private-key-file", "kubelet-client-certificate", "kubelet-client-key", "service-cluster-ip-range",
             "kubelet-certificate-authority", "proxy-client-cert-file", "proxy-client-key-file"), ""),
    },
    "controllers": dict.fromkeys(
        ("cluster-cidr", "node-cidr-mask-size", "root-ca-file", "load-balancer-range"), ""
    ),
    "agent": dict.fromkeys(
        ("node-name", "node-ip", "runtime", "cri-socket", "root-dir", "run-dir", "image-root", "image-puller", "pod-cidr",
         "cgroup-root", "registries-conf",
         "runtime-cgroup", "cluster-dns", "address", "port", "tls-cert-file", "tls-private-key-file", "client-ca-file"), ""
    ) | {"cpu": "use: navarch up --node-cpu", "memory": "use: navarch up --node-memory"},
}  # fmt: skip


def known_settings(component: str) -> list[str]:
    """Names of what can be set."""
    table = importlib.import_module(MODULES[component]).SETTINGS
    return sorted(set(table.kinds) - set(OWN.get(component, ())))


def checked(settings: Mapping[str, str]) -> dict[str, str]:
    """The settings with files by their whole path, for components run elsewhere. Raises LabError with all that is wrong."""
    wrong: list[str] = []
    out: dict[str, str] = {}
    for key, value in settings.items():
        component, _, name = key.partition(".")
        if component not in MODULES or not name:
            near = difflib.get_close_matches(component, MODULES, 1)
            did = f'; did you mean "{near[0]}.{name or "NAME"}"?' if near else ""
            wrong.append(f"{key}: say COMPONENT.NAME=VALUE with a component of {', '.join(MODULES)}{did}")
            continue
        instead = OWN.get(component, {}).get(name)
        if instead is not None:
            wrong.append(f"{key} is the lab's own" + (f"; {instead}" if instead else ""))
            continue
        kind = importlib.import_module(MODULES[component]).SETTINGS.kinds.get(name)
        out[key] = str(Path(value).absolute()) if kind is not None and kind.file and value else value
    for component, module in MODULES.items():
        own = [f"{key.partition('.')[2]}={value}" for key, value in out.items() if key.startswith(f"{component}.")]
        if own:
            try:
                importlib.import_module(module).check(own)
            except ValueError as error:
                wrong.append(str(error))
    if wrong:
        raise LabError("\n".join(wrong))
    return out


def without(settings: Mapping[str, str], names: list[str]) -> dict[str, str]:
    """The settings without some. Raises LabError for a name that is not set."""
    for name in names:
        if name not in settings:
            near = difflib.get_close_matches(name, settings, 1)
            what = f'did you mean "{near[0]}"?' if near else f"what is set: {', '.join(sorted(settings)) or 'nothing'}"
            raise LabError(f"--unset {name}: that is not set; {what}")
    return {name: value for name, value in settings.items() if name not in names}
