"""Services: one address and name for many pods. Defaults, validation and columns; addresses and ports are taken in
:mod:`.serviceaddresses`. The cluster is IPv4 only: a Service has at most one cluster IP."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

from apiserver.kinds.cells import age_cell, fill, kind, labels_text, name_cell, spec_of, status_of
from apiserver.kinds.checks import immutable, named, one_of, optional_name, range_cause, validate_labels
from apiserver.kinds.core.services_addresses import Addresses, needs_address, needs_health_check
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from apiserver.request import Context
from navarch.api import names
from navarch.api.addresses import special_address
from navarch.api.errors import Cause, duplicate, forbidden, invalid, not_supported, required

TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
PROTOCOLS = ("SCTP", "TCP", "UDP")
AFFINITIES = ("ClientIP", "None")
FAMILY_POLICIES = ("PreferDualStack", "RequireDualStack", "SingleStack")
TRAFFIC = ("Cluster", "Local")
DISTRIBUTIONS = ("PreferClose", "PreferSameZone", "PreferSameNode")
STICKY_SECONDS = 10800
LOAD_BALANCER_ONLY = ("loadBalancerSourceRanges", "loadBalancerClass", "allocateLoadBalancerNodePorts")
KUBELET_PORT = 10250
ADDRESS_FIELDS = ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy")


def is_headless(spec: Tree) -> bool:
    return bool(spec.get("clusterIP") == "None")


class ServiceStrategy(Strategy):
    kind = kind("v1", "Service")
    has_status = True
    create_on_update = True
    generation = False
    selectable_fields = ("spec.clusterIP", "spec.type")
    columns = (
        NAME_COLUMN, Column("Type"), Column("Cluster-IP"), Column("External-IP"), Column("Port(s)"), AGE_COLUMN,
        Column("Selector", priority=1),
    )  # fmt: skip

    def __init__(self, addresses: Addresses) -> None:
        self.addresses = addresses

    def default(self, obj: Tree) -> None:
        spec = obj.setdefault("spec", {})
        fill(spec, sessionAffinity="None", type="ClusterIP")
        if spec["sessionAffinity"] == "None":
            spec.pop("sessionAffinityConfig", None)
        elif spec["sessionAffinity"] == "ClientIP":
            fill(spec, sessionAffinityConfig={})
            fill(spec["sessionAffinityConfig"], clientIP={})
            fill(spec["sessionAffinityConfig"]["clientIP"], timeoutSeconds=STICKY_SECONDS)
        for port in spec.get("ports") or ():
            if not port.get("protocol"):
                port["protocol"] = "TCP"
            if port.get("targetPort") in (None, 0, ""):
                port["targetPort"] = port.get("port", 0)
        external = spec["type"] in ("NodePort", "LoadBalancer")
        if (external or (spec["type"] == "ClusterIP" and spec.get("externalIPs"))) and not spec.get("externalTrafficPolicy"):
            spec["externalTrafficPolicy"] = "Cluster"
        if spec["type"] != "ExternalName":
            fill(spec, internalTrafficPolicy="Cluster")
        if spec["type"] == "LoadBalancer":
            fill(spec, allocateLoadBalancerNodePorts=True)
        self._families(spec)

    def _families(self, spec: Tree) -> None:
        """clusterIP and clusterIPs[0] are one value; families follow, since there is only IPv4."""
        if spec.get("clusterIP") and not spec.get("clusterIPs"):
            spec["clusterIPs"] = [spec["clusterIP"]]
        elif spec.get("clusterIPs") and not spec.get("clusterIP"):
            spec["clusterIP"] = spec["clusterIPs"][0]
        if spec["type"] != "ExternalName":
            fill(spec, ipFamilyPolicy="SingleStack")
            if not spec.get("ipFamilies"):
                spec["ipFamilies"] = ["IPv4"]

    def zero_status(self) -> Tree:
        return {"loadBalancer": {}}

    def prepare_create(self, context: Context, obj: Tree) -> None:
        obj["status"] = self.zero_status()

    def prepare_update(self, context: Context, obj: Tree, old: Tree) -> None:
        """Keeps what was allocated when the client left it out, drops what the new type has no use for."""
        obj["status"] = dict(old.get("status") or self.zero_status())
        new, was = spec_of(obj), spec_of(old)
        unset = not new.get("clusterIP") and not new.get("clusterIPs")
        if unset and needs_address(new) and needs_address(was):
            new.update({field: was[field] for field in ADDRESS_FIELDS if field in was})
        if new.get("clusterIP") != was.get("clusterIP") and new.get("clusterIPs") == was.get("clusterIPs"):
            new["clusterIPs"] = [new["clusterIP"]] if new.get("clusterIP") else []
        elif new.get("clusterIPs") != was.get("clusterIPs") and new.get("clusterIP") == was.get("clusterIP"):
            new["clusterIP"] = new["clusterIPs"][0] if new.get("clusterIPs") else ""
        if new.get("type") == "ExternalName" and was.get("type") != "ExternalName":
            for field in (*ADDRESS_FIELDS, "internalTrafficPolicy"):
                if new.get(field) == was.get(field):
                    new.pop(field, None)
        for field in ("clusterIP", "clusterIPs"):
            if not new.get(field):
                new.pop(field, None)
        self._ports(new, was)

    def _ports(self, new: Tree, was: Tree) -> None:
        external = ("NodePort", "LoadBalancer")
        before = {(p.get("protocol"), p.get("port")): p.get("nodePort") for p in was.get("ports") or ()}
        node_ports = [p.get("nodePort") for p in new.get("ports") or () if p.get("nodePort")]
        for port in new.get("ports") or ():
            key = (port.get("protocol"), port.get("port"))
            if new.get("type") in external and was.get("type") in external:
                if not port.get("nodePort") and before.get(key) and before[key] not in node_ports:
                    port["nodePort"] = before[key]
            elif new.get("type") not in external and port.get("nodePort") == before.get(key):
                port.pop("nodePort", None)
        if was.get("type") == "LoadBalancer" and new.get("type") != "LoadBalancer":
            # What only fitted the old type goes, unless it was changed at once: then it is refused.
            for field in ("loadBalancerClass", "allocateLoadBalancerNodePorts"):
                if new.get(field) == was.get(field):
                    new.pop(field, None)
        if needs_health_check(was) and not needs_health_check(new):
            if new.get("healthCheckNodePort") == was.get("healthCheckNodePort"):
                new.pop("healthCheckNodePort", None)
        elif needs_health_check(was) and was.get("healthCheckNodePort"):
            fill(new, healthCheckNodePort=was["healthCheckNodePort"])
        inside = new.get("type") not in external and not new.get("externalIPs")
        if inside and new.get("externalTrafficPolicy") == was.get("externalTrafficPolicy"):
            new.pop("externalTrafficPolicy", None)
        if new.get("type") != "LoadBalancer":
            new.pop("allocateLoadBalancerNodePorts", None)

    def name_causes(self, name: str, prefix: bool) -> list[str]:
        return names.dns1035(name.rstrip("-") if prefix else name)

    def validate(self, obj: Tree) -> list[Cause]:
        spec = spec_of(obj)
        type_ = spec.get("type") or ""
        out = one_of(type_, "spec.type", TYPES)
        out += _ports_causes(spec, type_)
        out += validate_labels(spec.get("selector"), "spec.selector")
        out += one_of(spec.get("sessionAffinity"), "spec.sessionAffinity", AFFINITIES)
        sticky = ((spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}).get("timeoutSeconds")
        if sticky is not None and not 0 < sticky <= 86400:
            path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds"
            out.append(invalid(path, sticky, "must be greater than 0 and less than 86400"))
        out += _addresses(spec, type_)
        for i, address in enumerate(spec.get("externalIPs") or ()):
            out += _host_address(address, f"spec.externalIPs[{i}]")
        out += _traffic(spec, type_)
        return out

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        new, was, out = spec_of(obj), spec_of(old), self.validate(obj)
        if needs_address(new) and needs_address(was) and was.get("clusterIP"):
            if not new.get("clusterIP"):
                out.append(invalid("spec.clusterIPs[0]", [], "primary clusterIP can not be unset"))
            elif new["clusterIP"] != was["clusterIP"]:
                out.append(invalid("spec.clusterIPs[0]", [new["clusterIP"]], "may not change once set"))
        checked = needs_health_check(new) and needs_health_check(was)
        if checked and new.get("healthCheckNodePort") != was.get("healthCheckNodePort"):
            out.append(forbidden("spec.healthCheckNodePort", "field is immutable"))
        if new.get("type") == was.get("type") == "LoadBalancer":
            out += immutable(new.get("loadBalancerClass"), was.get("loadBalancerClass"), "spec.loadBalancerClass")
        return out

    def fields(self, obj: Tree) -> dict[str, str]:
        spec = spec_of(obj)
        return {"spec.clusterIP": spec.get("clusterIP") or "", "spec.type": spec.get("type") or ""}

    def cells(self, obj: Tree, now: float) -> list[Any]:
        spec = spec_of(obj)
        return [
            name_cell(obj), spec.get("type") or "", spec.get("clusterIP") or "<none>", _external(obj),
            _ports_text(spec.get("ports")), age_cell(obj, now), labels_text(spec.get("selector")),
        ]  # fmt: skip

    async def begin_create(self, context: Context, obj: Tree, dry_run: bool) -> Callable[[bool], Any] | None:
        return await self.addresses.begin(obj, None, dry_run)

    async def begin_update(self, context: Context, obj: Tree, old: Tree, dry_run: bool) -> Callable[[bool], Any] | None:
        return await self.addresses.begin(obj, old, dry_run)

    async def after_delete(self, obj: Tree) -> None:
        await self.addresses.release(obj)


def _external(obj: Tree) -> str:
    spec = spec_of(obj)
    addresses = list(spec.get("externalIPs") or ())
    if spec.get("type") == "ExternalName":
        return str(spec.get("externalName") or "")
    if spec.get("type") == "LoadBalancer":
        ingress = (status_of(obj).get("loadBalancer") or {}).get("ingress") or ()
        addresses = [i.get("ip") or i.get("hostname") or "" for i in ingress] + addresses
        return ",".join(addresses) or "<pending>"
    return ",".join(addresses) or "<none>"


def _ports_text(ports: list[Tree] | None) -> str:
    out = []
    for port in ports or ():
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        out.append(f"{port.get('port')}{node}/{port.get('protocol')}")
    return ",".join(out) or "<none>"


def _ports_causes(spec: Tree, type_: str) -> list[Cause]:
    ports = spec.get("ports") or []
    if not ports and not is_headless(spec) and type_ != "ExternalName":
        return [required("spec.ports")]
    out: list[Cause] = []
    seen_names: set[str] = set()
    keys: set[tuple[Any, Any]] = set()
    nodes: set[tuple[Any, Any]] = set()
    for i, port in enumerate(ports):
        at, name, protocol = f"spec.ports[{i}]", port.get("name") or "", port.get("protocol")
        if len(ports) > 1 or name:
            out += named(name, f"{at}.name", names.dns_label)
            if name and name in seen_names:
                out.append(duplicate(f"{at}.name", name))
            seen_names.add(name)
        out += range_cause(port.get("port") or 0, f"{at}.port", names.port_number)
        out += one_of(protocol, f"{at}.protocol", PROTOCOLS)
        target = port.get("targetPort")
        if isinstance(target, int):
            out += range_cause(target, f"{at}.targetPort", names.port_number)
        elif target:
            out += [invalid(f"{at}.targetPort", target, m) for m in names.port_name(target)]
        out += optional_name(port.get("appProtocol"), f"{at}.appProtocol", names.qualified_name)
        node = port.get("nodePort")
        if node and type_ in ("ClusterIP", "ExternalName"):
            out.append(forbidden(f"{at}.nodePort", f"may not be used when `type` is '{type_}'"))
        elif node:
            if (protocol, node) in nodes:
                out.append(duplicate(f"{at}.nodePort", node))
            nodes.add((protocol, node))
        key = (protocol, port.get("port"))
        if key in keys:
            out.append(duplicate(at, {"port": key[1], "protocol": key[0]}))
        keys.add(key)
    return out


def _addresses(spec: Tree, type_: str) -> list[Cause]:
    out: list[Cause] = []
    addresses = spec.get("clusterIPs") or []
    if type_ == "ExternalName":
        for field in ("clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            if spec.get(field):
                out.append(forbidden(f"spec.{field}", "may not be set for ExternalName services"))
        name = (spec.get("externalName") or "").removesuffix(".")
        return out + named(name, "spec.externalName", names.dns_subdomain)
    if is_headless(spec) and type_ in ("NodePort", "LoadBalancer"):
        out.append(invalid("spec.clusterIPs[0]", "None", f"may not be set to 'None' for {type_} services"))
    if addresses and addresses[0] != spec.get("clusterIP"):
        out.append(invalid("spec.clusterIPs", addresses, "first value must match `clusterIP`"))
    if len(addresses) > 1:
        out.append(
            invalid("spec.clusterIPs[1]", addresses[1], "this cluster is not configured for dual-stack services")
        )
    for i, address in enumerate(addresses[:1]):
        if address != "None":
            out += [invalid(f"spec.clusterIPs[{i}]", address, m) for m in names.ip_address(address)]
    policy = spec.get("ipFamilyPolicy")
    if policy not in FAMILY_POLICIES:
        out.append(not_supported("spec.ipFamilyPolicy", policy or "", FAMILY_POLICIES))
    elif policy == "RequireDualStack":
        out.append(invalid("spec.ipFamilyPolicy", policy, "this cluster is not configured for dual-stack services"))
    for i, family in enumerate(spec.get("ipFamilies") or ()):
        if family not in ("IPv4", "IPv6"):
            out.append(not_supported(f"spec.ipFamilies[{i}]", family, ("IPv4", "IPv6")))
        elif family == "IPv6":
            out.append(invalid(f"spec.ipFamilies[{i}]", family, "not configured on this cluster"))
    return out


def _host_address(text: str, path: str) -> list[Cause]:
    return [invalid(path, text, message) for message in names.ip_address(text) or special_address(text)]


def _load_balancer(spec: Tree, type_: str) -> list[Cause]:
    """The fields that only some services may set."""
    out: list[Cause] = []
    if spec.get("healthCheckNodePort") and not needs_health_check(spec):
        text = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        out.append(invalid("spec.healthCheckNodePort", spec["healthCheckNodePort"], text))
    elif spec.get("healthCheckNodePort"):
        out += range_cause(spec["healthCheckNodePort"], "spec.healthCheckNodePort", names.port_number)
    for i, text in enumerate(spec.get("loadBalancerSourceRanges") or ()):
        try:
            ipaddress.ip_network(text.strip(), strict=False)
            if "/" not in text:
                raise ValueError(text)
        except ValueError:
            wrong = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
            out.append(invalid(f"spec.loadBalancerSourceRanges[{i}]", text, wrong))
    for field in LOAD_BALANCER_ONLY:
        if type_ != "LoadBalancer" and spec.get(field) not in (None, []):
            out.append(forbidden(f"spec.{field}", "may only be used when `type` is 'LoadBalancer'"))
    if type_ == "LoadBalancer":
        if spec.get("allocateLoadBalancerNodePorts") is None:
            out.append(required("spec.allocateLoadBalancerNodePorts"))
        if (name := spec.get("loadBalancerClass")) is not None:
            out += [invalid("spec.loadBalancerClass", name, m) for m in names.qualified_name(name)]
        for i, port in enumerate(spec.get("ports") or ()):
            if port.get("port") == KUBELET_PORT:
                text = f"may not expose port {KUBELET_PORT} externally since it is used by kubelet"
                out.append(invalid(f"spec.ports[{i}].port", KUBELET_PORT, text))
    return out


def _traffic(spec: Tree, type_: str) -> list[Cause]:
    out: list[Cause] = []
    external, internal = spec.get("externalTrafficPolicy"), spec.get("internalTrafficPolicy")
    if external is not None:
        if type_ not in ("NodePort", "LoadBalancer") and not spec.get("externalIPs"):
            out.append(
                invalid("spec.externalTrafficPolicy", external, "may only be set for externally-accessible services")
            )
        elif external not in TRAFFIC:
            out.append(not_supported("spec.externalTrafficPolicy", external, TRAFFIC))
    if internal is None:
        if type_ != "ExternalName":
            out.append(required("spec.internalTrafficPolicy"))
    elif internal not in TRAFFIC:
        out.append(not_supported("spec.internalTrafficPolicy", internal, TRAFFIC))
    out += _load_balancer(spec, type_)
    distribution = spec.get("trafficDistribution")
    if distribution is not None and distribution not in DISTRIBUTIONS:
        out.append(not_supported("spec.trafficDistribution", distribution, DISTRIBUTIONS))
    return out
