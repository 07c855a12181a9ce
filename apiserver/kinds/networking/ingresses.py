"""Ingresses and their classes: HTTP from outside to services, by host and path."""

from __future__ import annotations

import ipaddress
from typing import Any

from apiserver.kinds.cells import age_cell, kind, meta_of, name_cell, spec_of, status_of
from apiserver.kinds.checks import optional_name
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from apiserver.request import Context
from navarch.api import names, wellknown
from navarch.api.errors import Cause, invalid, not_supported, required

CLASS_ANNOTATION = wellknown.INGRESS_CLASS
PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")
BAD_SEQUENCES = ("//", "/./", "/../", "%2f", "%2F")
BAD_ENDS = ("/..", "/.")
SHOWN = 3
ADDRESS_LENGTH = 16


class IngressStrategy(Strategy):
    kind = kind("networking.k8s.io/v1", "Ingress")
    has_status = True
    columns = (NAME_COLUMN, Column("Class"), Column("Hosts"), Column("Address"), Column("Ports"), AGE_COLUMN)

    def zero_status(self) -> Tree:
        return {"loadBalancer": {}}

    def prepare_create(self, context: Context, obj: Tree) -> None:
        obj["status"] = self.zero_status()

    def validate(self, obj: Tree) -> list[Cause]:
        spec, out = spec_of(obj), []
        notes = meta_of(obj).get("annotations") or {}
        if notes.get(CLASS_ANNOTATION) and spec.get("ingressClassName"):
            text = "can not be set when the class field is also set"
            out.append(invalid(f"metadata.annotations[{CLASS_ANNOTATION}]", notes[CLASS_ANNOTATION], text))
        return out + self._spec(spec)

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        return self._spec(spec_of(obj))  # the annotation is only looked at when the object is made

    def _spec(self, spec: Tree) -> list[Cause]:
        rules, default = spec.get("rules") or [], spec.get("defaultBackend")
        out: list[Cause] = []
        if not rules and default is None:
            out.append(invalid("spec", rules, "either `defaultBackend` or `rules` must be specified"))
        if default is not None:
            out += _backend(default, "spec.defaultBackend")
        for i, rule in enumerate(rules):
            out += _rule(rule, f"spec.rules[{i}]")
        for i, tls in enumerate(spec.get("tls") or ()):
            for j, host in enumerate(tls.get("hosts") or ()):
                out += _host(host, f"spec.tls[{i}].hosts[{j}]")
            out += optional_name(tls.get("secretName"), f"spec.tls[{i}].secretName", names.dns_subdomain)
        class_name = spec.get("ingressClassName")
        if class_name is not None:
            out += [invalid("spec.ingressClassName", class_name, m) for m in names.dns_subdomain(class_name)]
        return out

    def cells(self, obj: Tree, now: float) -> list[Any]:
        spec = spec_of(obj)
        class_name = spec.get("ingressClassName") or (meta_of(obj).get("annotations") or {}).get(CLASS_ANNOTATION)
        hosts = [r["host"] for r in spec.get("rules") or () if r.get("host")]
        shown = ",".join(hosts[:SHOWN]) or "*"
        if len(hosts) > SHOWN:
            shown += f" + {len(hosts) - SHOWN} more..."
        points = (status_of(obj).get("loadBalancer") or {}).get("ingress") or ()
        address = ",".join(p.get("ip") or p.get("hostname") or "" for p in points)
        if len(address) > ADDRESS_LENGTH:
            address = address[: ADDRESS_LENGTH - 3] + "..."
        ports = "80, 443" if spec.get("tls") else "80"
        return [name_cell(obj), class_name or "<none>", shown, address, ports, age_cell(obj, now)]


def _host(host: str, path: str) -> list[Cause]:
    if not host:
        return []
    check = names.wildcard_subdomain if "*" in host else names.dns_subdomain
    return [invalid(path, host, m) for m in check(host)]


def _rule(rule: Tree, path: str) -> list[Cause]:
    host, http = rule.get("host") or "", rule.get("http")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        out = _host(host, f"{path}.host")
    else:
        out = [invalid(f"{path}.host", host, "must be a DNS name, not an IP address")]
    if http is None:
        return out
    paths = http.get("paths") or []
    if not paths:
        out.append(required(f"{path}.http.paths"))
    for i, entry in enumerate(paths):
        here = f"{path}.http.paths[{i}]"
        out += _path(entry, here) + _backend(entry.get("backend") or {}, f"{here}.backend")
    return out


def _path(entry: Tree, here: str) -> list[Cause]:
    type_, path = entry.get("pathType"), entry.get("path") or ""
    if type_ is None:
        return [required(f"{here}.pathType", "pathType must be specified")]
    if type_ not in PATH_TYPES:
        return [not_supported(f"{here}.pathType", type_, PATH_TYPES)]
    if type_ == "ImplementationSpecific":
        if path and not path.startswith("/"):
            return [invalid(f"{here}.path", path, "must be an absolute path")]
        return []
    out: list[Cause] = []
    if not path.startswith("/"):
        out.append(invalid(f"{here}.path", path, "must be an absolute path"))
    if path:
        out += [invalid(f"{here}.path", path, f"must not contain '{bad}'") for bad in BAD_SEQUENCES if bad in path]
        out += [invalid(f"{here}.path", path, f"cannot end with '{bad}'") for bad in BAD_ENDS if path.endswith(bad)]
    return out


def _backend(backend: Tree, path: str) -> list[Cause]:
    service, resource = backend.get("service"), backend.get("resource")
    if service is not None and resource is not None:
        return [invalid(path, "", "cannot set both resource and service backends")]
    if resource is not None:
        out = [required(f"{path}.resource.{f}") for f in ("kind", "name") if not resource.get(f)]
        return out + optional_name(resource.get("apiGroup"), f"{path}.resource.apiGroup", names.dns_subdomain)
    if service is None:
        return [invalid(path, "", "resource or service backend is required")]
    name, port = service.get("name") or "", service.get("port") or {}
    out = [] if name else [required(f"{path}.service.name")]
    if name:
        out += [invalid(f"{path}.service.name", name, m) for m in names.dns1035(name)]
    number, word = port.get("number") or 0, port.get("name") or ""
    if number and word:
        return [*out, invalid(path, "", "cannot set both port name & port number")]
    if word:
        return out + [invalid(f"{path}.service.port.name", word, m) for m in names.port_name(word)]
    if number:
        return out + [invalid(f"{path}.service.port.number", number, m) for m in names.port_number(number)]
    return [*out, required(path, "port name or number is required")]
