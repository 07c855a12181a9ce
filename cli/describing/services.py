"""``describe service``."""

from __future__ import annotations

from typing import Any

from cli.describing import events
from cli.describing.writer import Writer, annotation_lines, pairs
from cli.session import Session
from navarch.api.errors import StatusError
from navarch.api.kinds import BY_GVK

Tree = dict[str, Any]
SLICE = BY_GVK["discovery.k8s.io", "v1", "EndpointSlice"]
SHOWN_ENDPOINTS = 3


async def describe(session: Session, service: Tree, show_events: bool) -> str:
    meta, spec, status = service["metadata"], service["spec"], service.get("status") or {}
    service_events = await events.about(session, "Service", service) if show_events else []
    try:
        label = f"kubernetes.io/service-name={meta['name']}"
        slices = (await session.client.tree(SLICE).list(meta["namespace"], label_selector=label)).items
    except StatusError:
        slices = []  # not allowed to see them: the service is still worth describing
    writer = Writer()
    writer.line(0, "Name:", meta["name"])
    writer.line(0, "Namespace:", meta["namespace"])
    pairs(writer, 0, "Labels", meta.get("labels"))
    annotation_lines(writer, 0, meta.get("annotations"))
    selector = spec.get("selector")
    writer.line(0, "Selector:", ",".join(f"{k}={v}" for k, v in sorted((selector or {}).items())) or "<none>")
    writer.line(0, "Type:", spec.get("type") or "")
    if spec.get("ipFamilyPolicy"):
        writer.line(0, "IP Family Policy:", spec["ipFamilyPolicy"])
    writer.line(0, "IP Families:", ",".join(spec.get("ipFamilies") or ()) or "<none>")
    writer.line(0, "IP:", spec.get("clusterIP") or "")
    writer.line(0, "IPs:", ",".join(spec.get("clusterIPs") or ()) or "<none>")
    if spec.get("externalIPs"):
        writer.line(0, "External IPs:", ",".join(spec["externalIPs"]))
    if spec.get("loadBalancerIP"):
        writer.line(0, "Desired LoadBalancer IP:", spec["loadBalancerIP"])
    if spec.get("externalName"):
        writer.line(0, "External Name:", spec["externalName"])
    ingress = (status.get("loadBalancer") or {}).get("ingress") or []
    if ingress:
        writer.line(0, "LoadBalancer Ingress:", ", ".join(map(_point, ingress)))
    for port in spec.get("ports") or ():
        _port(writer, port, slices)
    writer.line(0, "Session Affinity:", spec.get("sessionAffinity") or "None")
    if spec.get("externalTrafficPolicy"):
        writer.line(0, "External Traffic Policy:", spec["externalTrafficPolicy"])
    if spec.get("internalTrafficPolicy"):
        writer.line(0, "Internal Traffic Policy:", spec["internalTrafficPolicy"])
    if spec.get("trafficDistribution"):
        writer.line(0, "Traffic Distribution:", spec["trafficDistribution"])
    if spec.get("healthCheckNodePort"):
        writer.line(0, "HealthCheck NodePort:", str(spec["healthCheckNodePort"]))
    if spec.get("loadBalancerSourceRanges"):
        writer.line(0, "LoadBalancer Source Ranges:", ",".join(spec["loadBalancerSourceRanges"]))
    if show_events:
        events.describe(writer, service_events, session.world.now())
    return writer.text()


def _point(ingress: Tree) -> str:
    mode = f" ({ingress['ipMode']})" if ingress.get("ipMode") else ""
    return (ingress.get("ip") or ingress.get("hostname") or "") + mode


def _port(writer: Writer, port: Tree, slices: list[Tree]) -> None:
    name, protocol = port.get("name") or "<unset>", port.get("protocol") or "TCP"
    writer.line(0, "Port:", name, f"{port['port']}/{protocol}")
    writer.line(0, "TargetPort:", f"{port.get('targetPort')}/{protocol}")
    if port.get("nodePort"):
        writer.line(0, "NodePort:", name, f"{port['nodePort']}/{protocol}")
    writer.line(0, "Endpoints:", _endpoints(slices, port.get("name") or ""))


def _endpoints(slices: list[Tree], port_name: str) -> str:
    """The first addresses that are ready for a port, and how many more there are."""
    if not slices:
        return "<none>"
    listed = []
    for each in slices:
        numbers = [p.get("port") for p in each.get("ports") or () if (p.get("name") or "") == port_name]
        for endpoint in each.get("endpoints") or ():
            if (endpoint.get("conditions") or {}).get("ready", True):
                for address in endpoint.get("addresses") or ():
                    host = f"[{address}]" if ":" in address else address
                    listed += [f"{host}:{number}" for number in numbers]
    more = len(listed) - SHOWN_ENDPOINTS
    return ",".join(listed[:SHOWN_ENDPOINTS]) + (f" + {more} more..." if more > 0 else "")
