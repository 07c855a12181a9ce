"""A container's environment variables. Pure: the objects referred to are handed in.

Later beats earlier: service variables, then envFrom in order, then env in order. ``$(NAME)`` in a value sees what was
defined before it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from navarch.api.types import core_v1
from nodeagent.pods.fieldrefs import ConfigError, Facts, expand, field_value, resource_value
from nodeagent.pods.observed import AnyContainer


class Reference(NamedTuple):
    """A ConfigMap or Secret that a pod names, in its own namespace."""

    kind: str  # "ConfigMap" or "Secret"
    name: str


Objects = Mapping[Reference, core_v1.ConfigMap | core_v1.Secret | None]
"""Objects by the reference that led to them; None: there is no such object."""


def references(container: AnyContainer) -> Iterator[Reference]:
    """The ConfigMaps and Secrets that a container's environment needs."""
    for source in container.env_from or ():
        if source.config_map_ref is not None:
            yield Reference("ConfigMap", source.config_map_ref.name or "")
        if source.secret_ref is not None:
            yield Reference("Secret", source.secret_ref.name or "")
    for variable in container.env or ():
        source_of = variable.value_from
        if source_of is None:
            continue
        if source_of.config_map_key_ref is not None:
            yield Reference("ConfigMap", source_of.config_map_key_ref.name or "")
        if source_of.secret_key_ref is not None:
            yield Reference("Secret", source_of.secret_key_ref.name or "")


def content(obj: core_v1.ConfigMap | core_v1.Secret) -> dict[str, bytes]:
    """The entries of a ConfigMap or Secret as bytes."""
    if isinstance(obj, core_v1.Secret):
        return {k: base64.b64decode(v) for k, v in (obj.data or {}).items()}
    out = {k: v.encode() for k, v in (obj.data or {}).items()}
    return out | {k: base64.b64decode(v) for k, v in (obj.binary_data or {}).items()}


def variables(
    pod: core_v1.Pod,
    container: AnyContainer,
    objects: Objects,
    services: Iterable[core_v1.Service],
    facts: Facts,
) -> list[tuple[str, str]]:
    """All variables in the order of definition. Raises ConfigError where something required is missing."""
    linked = service_variables(pod, services)
    env: dict[str, str] = {}
    for source in container.env_from or ():
        for name, value in _from(source, objects):
            env[(source.prefix or "") + name] = value
    for variable in container.env or ():
        text = _value(pod, container, variable, objects, facts, linked | env)
        if text is not None:
            env[variable.name] = text
    return list(env.items()) + [(k, v) for k, v in linked.items() if k not in env]


def _from(source: core_v1.EnvFromSource, objects: Objects) -> Iterator[tuple[str, str]]:
    reference: core_v1.ConfigMapEnvSource | core_v1.SecretEnvSource
    if source.config_map_ref is not None:
        kind, reference = "ConfigMap", source.config_map_ref
    elif source.secret_ref is not None:
        kind, reference = "Secret", source.secret_ref
    else:
        return
    obj = objects.get(Reference(kind, reference.name or ""))
    if obj is None:
        if not reference.optional:
            raise ConfigError(f'{kind.lower()} "{reference.name}" not found')
        return
    if isinstance(obj, core_v1.ConfigMap):
        yield from (obj.data or {}).items()
    else:
        for name, value in content(obj).items():
            yield name, value.decode(errors="replace")


def _value(
    pod: core_v1.Pod,
    container: AnyContainer,
    variable: core_v1.EnvVar,
    objects: Objects,
    facts: Facts,
    earlier: Mapping[str, str],
) -> str | None:
    source = variable.value_from
    if source is None:
        return expand(variable.value or "", earlier)
    if source.field_ref is not None:
        return field_value(pod, source.field_ref.field_path, facts)
    if source.resource_field_ref is not None:
        return resource_value(source.resource_field_ref, container, facts)
    selector: core_v1.ConfigMapKeySelector | core_v1.SecretKeySelector
    if source.config_map_key_ref is not None:
        kind, selector = "ConfigMap", source.config_map_key_ref
    elif source.secret_key_ref is not None:
        kind, selector = "Secret", source.secret_key_ref
    else:
        raise ConfigError(f"environment variable {variable.name}: its source is not supported")
    obj = objects.get(Reference(kind, selector.name or ""))
    if obj is None:
        if selector.optional:
            return None
        raise ConfigError(f'{kind.lower()} "{selector.name}" not found')
    if isinstance(obj, core_v1.ConfigMap):
        text = (obj.data or {}).get(selector.key)
    else:
        raw = content(obj).get(selector.key)
        text = None if raw is None else raw.decode(errors="replace")
    if text is None and not selector.optional:
        raise ConfigError(f"couldn't find key {selector.key} in {kind} {pod.metadata.namespace}/{selector.name}")
    return text


def service_variables(pod: core_v1.Pod, services: Iterable[core_v1.Service]) -> dict[str, str]:
    """Variables of the services that a pod is told about: ``default/kubernetes`` always, its namespace's unless
    enableServiceLinks is false."""
    namespace = pod.metadata.namespace
    links = pod.spec.enable_service_links is not False
    chosen: dict[str, core_v1.Service] = {}
    for service in sorted(services, key=lambda s: (s.metadata.name or "", s.metadata.namespace != "default")):
        if service.spec is None or service.spec.cluster_ip in (None, "", "None"):
            continue
        name = service.metadata.name or ""
        api = service.metadata.namespace == "default" and name == "kubernetes"
        if (links and service.metadata.namespace == namespace) or (api and name not in chosen):
            chosen[name] = service
    out: dict[str, str] = {}
    for name, service in chosen.items():
        out.update(_service(name, service))
    return out


def _service(name: str, service: core_v1.Service) -> Iterator[tuple[str, str]]:
    prefix = name.upper().replace("-", "_")
    ip = service.spec.cluster_ip or ""
    ports = service.spec.ports or []
    if not ports:
        return
    yield f"{prefix}_SERVICE_HOST", ip
    yield f"{prefix}_SERVICE_PORT", str(ports[0].port)
    for port in ports:
        if port.name:
            yield f"{prefix}_SERVICE_PORT_{port.name.upper().replace('-', '_')}", str(port.port)
    shown = f"[{ip}]" if ":" in ip else ip
    for i, port in enumerate(ports):
        protocol = port.protocol or "TCP"
        url = f"{protocol.lower()}://{shown}:{port.port}"
        if i == 0:
            yield f"{prefix}_PORT", url
        one = f"{prefix}_PORT_{port.port}_{protocol.upper()}"
        yield one, url
        yield f"{one}_PROTO", protocol.lower()
        yield f"{one}_PORT", str(port.port)
        yield f"{one}_ADDR", ip
