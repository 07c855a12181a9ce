"""The common part of pods and pod templates: containers, their environment and mounts, volumes, tolerations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cli.describing import volumes
from cli.describing.writer import Writer, aligned, annotation_lines, boolean, moment, pairs
from navarch.api import quantity

Tree = dict[str, Any]


def template_lines(template: Tree, tabs: bool = False) -> list[str]:
    """A pod template as lines of its own; ``tabs``: not aligned, as rollout history prints it."""
    writer = Writer()
    describe_template(writer, template)
    return writer.lines if tabs else aligned(writer.lines)


def describe_template(writer: Writer, template: Tree) -> None:
    meta, spec = template.get("metadata") or {}, template.get("spec") or {}
    writer.line(0, "Pod Template:")
    pairs(writer, 1, "Labels", meta.get("labels"))
    if meta.get("annotations"):
        annotation_lines(writer, 1, meta["annotations"])
    if spec.get("serviceAccountName"):
        writer.line(1, "Service Account:", spec["serviceAccountName"])
    if spec.get("initContainers"):
        containers(writer, "Init Containers", spec["initContainers"], {}, None, " ")
    containers(writer, "Containers", spec.get("containers") or [], {}, None, " ")
    volumes.describe(writer, spec.get("volumes") or [], " ")
    if spec.get("topologySpreadConstraints"):
        _spread(writer, spec["topologySpreadConstraints"])
    if spec.get("priorityClassName"):
        writer.line(1, "Priority Class Name:", spec["priorityClassName"])
    pairs(writer, 1, "Node-Selectors", spec.get("nodeSelector"))
    tolerations(writer, "  ", spec.get("tolerations") or [])


def _spread(writer: Writer, constraints: list[Tree]) -> None:
    writer.line(1, "Topology Spread Constraints:")
    for each in constraints:
        writer.line(
            2,
            f"{each.get('topologyKey')}:{each.get('whenUnsatisfiable')} when max skew {each.get('maxSkew')} is exceeded",
        )


def tolerations(writer: Writer, indent: str, listed: list[Tree]) -> None:
    if not listed:
        writer.lines.append(f"{indent}Tolerations:\t<none>")
        return
    for index, each in enumerate(listed):
        text = each.get("key") or ""
        if each.get("value"):
            text += f"={each['value']}"
        if each.get("effect"):
            text += f":{each['effect']}"
        if each.get("operator") == "Exists":
            text = f"{text} op=Exists" if text else " op=Exists".strip()
        seconds = each.get("tolerationSeconds")
        if seconds is not None:
            text += f" for {seconds}s"
        writer.lines.append(f"{indent}{'Tolerations:' if not index else ''}\t{text}")


def containers(
    writer: Writer, title: str, listed: list[Tree], statuses: Mapping[str, Tree], pod: Tree | None, space: str
) -> None:
    """Containers of a template (``pod`` None, ``space`` a blank) or of a pod, with their statuses."""
    writer.lines.append(f"{space}{' ' if space else ''}{title}:" if space else f"{title}:")
    for each in listed:
        status = statuses.get(each["name"])
        name = each["name"] or "<none>"
        writer.lines.append(f"{space}  {name}:")
        _basics(writer, each, status, space)
        _command(writer, each)
        if status:
            _state(writer, status)
        _resources(writer, each)
        for kind in ("liveness", "readiness", "startup"):
            if each.get(f"{kind}Probe"):
                writer.line(2, f"{kind.capitalize()}:", probe(each[f"{kind}Probe"]))
        _environment(writer, each, pod)
        _mounts(writer, each)


def _basics(writer: Writer, container: Tree, status: Tree | None, space: str) -> None:
    if status is not None:
        writer.line(2, "Container ID:", status.get("containerID") or "")
    writer.line(2, "Image:", container.get("image") or "")
    if status is not None:
        writer.line(2, "Image ID:", status.get("imageID") or "")
    ports = container.get("ports") or []
    inner = [f"{p['containerPort']}/{p.get('protocol') or 'TCP'}" for p in ports]
    outer = [f"{p.get('hostPort') or 0}/{p.get('protocol') or 'TCP'}" for p in ports]
    plural = "s" if len(ports) > 1 else ""
    if space and ports:
        inner = [text + (f" ({p['name']})" if p.get("name") else "") for text, p in zip(inner, ports, strict=True)]
    writer.line(2, f"Port{plural}:", ", ".join(inner) or "<none>")
    writer.line(2, f"Host Port{plural}:", ", ".join(outer) or "<none>")


def _command(writer: Writer, container: Tree) -> None:
    for title, words in (("Command", container.get("command")), ("Args", container.get("args"))):
        if words:
            writer.line(2, f"{title}:")
            for word in words:
                for line in str(word).split("\n"):
                    writer.line(3, line)


def _state(writer: Writer, status: Tree) -> None:
    _one_state(writer, "State", status.get("state") or {})
    if (status.get("lastState") or {}).get("terminated"):
        _one_state(writer, "Last State", status["lastState"])
    writer.line(2, "Ready:", str(bool(status.get("ready"))))
    writer.line(2, "Restart Count:", str(status.get("restartCount") or 0))


def _one_state(writer: Writer, title: str, state: Tree) -> None:
    if "running" in state:
        writer.line(2, f"{title}:", "Running")
        writer.line(3, "Started:", moment(state["running"].get("startedAt")))
    elif "terminated" in state:
        ended = state["terminated"]
        writer.line(2, f"{title}:", "Terminated")
        if ended.get("reason"):
            writer.line(3, "Reason:", ended["reason"])
        if ended.get("message"):
            writer.line(3, "Message:", ended["message"])
        writer.line(3, "Exit Code:", str(ended.get("exitCode", 0)))
        if ended.get("signal"):
            writer.line(3, "Signal:", str(ended["signal"]))
        writer.line(3, "Started:", moment(ended.get("startedAt")))
        writer.line(3, "Finished:", moment(ended.get("finishedAt")))
    else:
        waiting = state.get("waiting") or {}
        writer.line(2, f"{title}:", "Waiting")
        if waiting.get("reason"):
            writer.line(3, "Reason:", waiting["reason"])
        if waiting.get("message"):
            writer.line(3, "Message:", waiting["message"])


def _resources(writer: Writer, container: Tree) -> None:
    resources = container.get("resources") or {}
    for title in ("limits", "requests"):
        amounts = resources.get(title)
        if amounts:
            writer.line(2, f"{title.capitalize()}:")
            for name, amount in sorted(amounts.items()):
                writer.line(3, f"{name}:", quantity.canonical(amount))


def probe(tree: Tree) -> str:
    attributes = (
        f"delay={tree.get('initialDelaySeconds') or 0}s timeout={tree.get('timeoutSeconds') or 1}s "
        f"period={tree.get('periodSeconds') or 10}s #success={tree.get('successThreshold') or 1} "
        f"#failure={tree.get('failureThreshold') or 3}"
    )
    if "exec" in tree:
        return f"exec [{' '.join(tree['exec'].get('command') or ())}] {attributes}"
    if "httpGet" in tree:
        get = tree["httpGet"]
        path = get.get("path") or ""
        path = path if not path or path.startswith("/") else f"/{path}"
        scheme, host = (get.get("scheme") or "HTTP").lower(), get.get("host") or ""
        return f"http-get {scheme}://{host}:{get.get('port')}{path} {attributes}"
    if "tcpSocket" in tree:
        return f"tcp-socket {tree['tcpSocket'].get('host') or ''}:{tree['tcpSocket'].get('port')} {attributes}"
    if "grpc" in tree:
        return f"grpc <pod>:{tree['grpc'].get('port')} {tree['grpc'].get('service') or ''} {attributes}"
    return f"unknown {attributes}"


def _environment(writer: Writer, container: Tree, pod: Tree | None) -> None:
    if container.get("envFrom"):
        writer.line(2, "Environment Variables from:")
        for source in container["envFrom"]:
            kind = "ConfigMap" if source.get("configMapRef") else "Secret"
            reference = source.get("configMapRef") or source.get("secretRef") or {}
            prefix = f" with prefix '{source['prefix']}'" if source.get("prefix") else ""
            optional = boolean(reference.get("optional"))
            writer.line(3, reference.get("name", ""), f"{kind}{prefix}\tOptional: {optional}")
    if not container.get("env"):
        writer.line(2, "Environment:", "<none>")
        return
    writer.line(2, "Environment:")
    for variable in container["env"]:
        source = variable.get("valueFrom") or {}
        name = f"{variable['name']}:"
        if not source:
            for index, line in enumerate(str(variable.get("value") or "").split("\n")):
                writer.line(3, name if not index else "", line)
        elif "fieldRef" in source:
            reference = source["fieldRef"]
            value = _field_of(pod, container, reference.get("fieldPath", "")) if pod else ""
            writer.line(3, name, f"{value} ({reference.get('apiVersion', 'v1')}:{reference.get('fieldPath')})")
        elif "resourceFieldRef" in source:
            reference = source["resourceFieldRef"]
            writer.line(3, name, f"{_amount_of(container, reference)} ({reference.get('resource')})")
        elif "secretKeyRef" in source:
            reference = source["secretKeyRef"]
            text = f"<set to the key '{reference.get('key')}' in secret '{reference.get('name')}'>"
            writer.line(3, name, text, f"Optional: {boolean(reference.get('optional'))}")
        elif "configMapKeyRef" in source:
            reference = source["configMapKeyRef"]
            text = f"<set to the key '{reference.get('key')}' of config map '{reference.get('name')}'>"
            writer.line(3, name, text, f"Optional: {boolean(reference.get('optional'))}")


def _field_of(pod: Tree, container: Tree, path: str) -> str:
    """The value of a downward API field, as far as the API object tells; "" for the rest."""
    meta = pod["metadata"]
    metadata_fields = {"metadata.name": "name", "metadata.namespace": "namespace", "metadata.uid": "uid"}
    if path in metadata_fields:
        return str(meta.get(metadata_fields[path]) or "")
    return ""


def _amount_of(container: Tree, reference: Tree) -> str:
    side, _, resource = str(reference.get("resource") or "").partition(".")
    amount = ((container.get("resources") or {}).get(side) or {}).get(resource)
    if amount is None:
        return "0"
    divisor = quantity.parse(reference.get("divisor") or "1") or quantity.parse("1")
    units = quantity.parse(amount) / divisor
    return str(-(-units.numerator // units.denominator))


def _mounts(writer: Writer, container: Tree) -> None:
    mounts = container.get("volumeMounts") or []
    if not mounts:
        writer.line(2, "Mounts:", "<none>")
    else:
        writer.line(2, "Mounts:")
        for mount in sorted(mounts, key=lambda m: str(m.get("mountPath"))):
            flags = "ro" if mount.get("readOnly") else "rw"
            if mount.get("subPath"):
                flags += f',path="{mount["subPath"]}"'
            writer.line(3, f"{mount.get('mountPath')} from {mount.get('name')} ({flags})")
    devices = container.get("volumeDevices") or []
    if devices:
        writer.line(2, "Devices:")
        for device in devices:
            writer.line(3, f"{device.get('devicePath')} from {device.get('name')}")
