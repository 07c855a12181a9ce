"""Files of a configMap, secret, downwardAPI or projected volume. Pure: objects and tokens are handed in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from navarch.api.types import core_v1
from nodeagent.pods.environment import Objects, Reference, content
from nodeagent.pods.fieldrefs import ConfigError, Facts, field_value, resource_value
from nodeagent.pods.observed import roles

DEFAULT_MODE = 0o644


class File(NamedTuple):
    data: bytes
    mode: int


class TokenWish(NamedTuple):
    """A service account token that a volume needs. An empty audience means the API server's own."""

    audience: str
    seconds: int


@dataclass(frozen=True)
class Sources:
    """Everything that volume contents are made from."""

    objects: Objects = field(default_factory=dict)
    tokens: Mapping[TokenWish, str] = field(default_factory=dict)
    facts: Facts = field(default_factory=Facts)
    private: bool = False  # the pod has an fsGroup or one user: tokens are not for everybody


def wishes(volume: core_v1.Volume) -> Iterator[TokenWish]:
    """The tokens that a volume needs."""
    for source in (volume.projected.sources if volume.projected else None) or ():
        if source.service_account_token is not None:
            yield wish(source.service_account_token)


def wish(token: core_v1.ServiceAccountTokenProjection) -> TokenWish:
    return TokenWish(token.audience or "", token.expiration_seconds or 3600)


def references(volume: core_v1.Volume) -> Iterator[Reference]:
    """The ConfigMaps and Secrets that a volume needs."""
    if volume.config_map is not None:
        yield Reference("ConfigMap", volume.config_map.name or "")
    if volume.secret is not None:
        yield Reference("Secret", volume.secret.secret_name or "")
    for source in (volume.projected.sources if volume.projected else None) or ():
        if source.config_map is not None:
            yield Reference("ConfigMap", source.config_map.name or "")
        if source.secret is not None:
            yield Reference("Secret", source.secret.name or "")


def has_payload(volume: core_v1.Volume) -> bool:
    """Whether the agent writes the volume's files itself."""
    return bool(volume.config_map or volume.secret or volume.downward_api or volume.projected)


def files(pod: core_v1.Pod, volume: core_v1.Volume, sources: Sources) -> dict[str, File]:
    """Relative path -> file. Raises ConfigError where something required is missing."""
    if volume.config_map is not None:
        cm = volume.config_map
        return _keys(pod, Reference("ConfigMap", cm.name or ""), cm.items, cm.default_mode, bool(cm.optional), sources)
    if volume.secret is not None:
        secret = volume.secret
        reference = Reference("Secret", secret.secret_name or "")
        return _keys(pod, reference, secret.items, secret.default_mode, bool(secret.optional), sources)
    if volume.downward_api is not None:
        return _downward(pod, volume.downward_api.items or (), volume.downward_api.default_mode, sources)
    out: dict[str, File] = {}
    projected = volume.projected or core_v1.ProjectedVolumeSource()
    mode = projected.default_mode
    for source in projected.sources or ():
        if source.config_map is not None:
            c = source.config_map
            out |= _keys(pod, Reference("ConfigMap", c.name or ""), c.items, mode, bool(c.optional), sources)
        if source.secret is not None:
            s = source.secret
            out |= _keys(pod, Reference("Secret", s.name or ""), s.items, mode, bool(s.optional), sources)
        if source.downward_api is not None:
            out |= _downward(pod, source.downward_api.items or (), mode, sources)
        if source.service_account_token is not None:
            token = source.service_account_token
            bits = 0o600 if sources.private else _mode(mode)
            out[token.path] = File(sources.tokens[wish(token)].encode(), bits)
        if source.cluster_trust_bundle is not None or source.pod_certificate is not None:
            raise ConfigError("projected volume source is not supported")
    return out


def _mode(mode: int | None) -> int:
    return DEFAULT_MODE if mode is None else mode


def _keys(
    pod: core_v1.Pod,
    reference: Reference,
    items: Sequence[core_v1.KeyToPath] | None,
    default_mode: int | None,
    optional: bool,
    sources: Sources,
) -> dict[str, File]:
    obj = sources.objects.get(reference)
    if obj is None:
        if optional:
            return {}
        raise ConfigError(f'{reference.kind.lower()} "{reference.name}" not found')
    entries = content(obj)
    if not items:
        return {key: File(data, _mode(default_mode)) for key, data in entries.items()}
    out = {}
    for item in items:
        if item.key not in entries:
            if optional:
                continue
            raise ConfigError(f"references non-existent {reference.kind.lower()} key: {item.key}")
        out[item.path] = File(entries[item.key], _mode(default_mode if item.mode is None else item.mode))
    return out


def _downward(
    pod: core_v1.Pod,
    items: Sequence[core_v1.DownwardAPIVolumeFile],
    default_mode: int | None,
    sources: Sources,
) -> dict[str, File]:
    by_name = {r.container.name: r.container for r in roles(pod.spec)}
    out = {}
    for item in items:
        if item.field_ref is not None:
            text = field_value(pod, item.field_ref.field_path, sources.facts)
        elif item.resource_field_ref is not None:
            container = by_name.get(item.resource_field_ref.container_name or "")
            if container is None:
                raise ConfigError(f"container {item.resource_field_ref.container_name} not found")
            text = resource_value(item.resource_field_ref, container, sources.facts)
        else:
            continue
        out[item.path] = File(text.encode(), _mode(default_mode if item.mode is None else item.mode))
    return out
