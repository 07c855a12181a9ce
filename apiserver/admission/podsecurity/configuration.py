"""PodSecurityConfiguration (pod-security.admission.config.k8s.io/v1): defaults for namespaces without labels, and who is
exempt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from apiserver.admission.podsecurity.levels import LEVELS, MODES, Policy, Standard, parse_level, parse_minor

VERSIONS = tuple(f"pod-security.admission.config.k8s.io/{v}" for v in ("v1", "v1beta1", "v1alpha1"))
KIND = "PodSecurityConfiguration"
PRIVILEGED_POLICY = Policy()


@dataclass(frozen=True)
class Configuration:
    default: Policy = PRIVILEGED_POLICY
    namespaces: frozenset[str] = frozenset()
    usernames: frozenset[str] = frozenset()
    runtime_classes: frozenset[str] = frozenset()


def configuration_of(tree: Mapping[str, Any] | None) -> Configuration:
    """The configuration in a file. Raises ValueError."""
    if not tree:
        return Configuration()
    if tree.get("kind") != KIND or tree.get("apiVersion") not in VERSIONS:
        file_kind = f"{tree.get('apiVersion')}, Kind={tree.get('kind')}"
        raise ValueError(f"PodSecurity: {file_kind} is no configuration of this plugin: use {VERSIONS[0]}, Kind={KIND}")
    if unknown := sorted(tree.keys() - {"apiVersion", "kind", "defaults", "exemptions"}):
        raise ValueError(f'PodSecurity: unknown field "{unknown[0]}"')
    defaults, exemptions = tree.get("defaults") or {}, tree.get("exemptions") or {}
    exempt_fields = {"namespaces": "namespaces", "usernames": "usernames", "runtimeClasses": "runtime_classes"}
    for section, fields in (("defaults", {f for m in MODES for f in (m, f"{m}-version")}), ("exemptions", set(exempt_fields))):
        if unknown := sorted((tree.get(section) or {}).keys() - fields):
            raise ValueError(f'PodSecurity: unknown field "{section}.{unknown[0]}"')
    found_exempt = {exempt_fields[field]: frozenset(exemptions.get(field) or ()) for field in exempt_fields}
    return Configuration(Policy(*(_standard(defaults, mode) for mode in MODES)), **found_exempt)


def _standard(defaults: Mapping[str, str], mode: str) -> Standard:
    level, version = defaults.get(mode) or "privileged", defaults.get(f"{mode}-version") or "latest"
    minor = parse_minor(version)
    if parse_level(level) is None:
        raise ValueError(f'PodSecurity: defaults.{mode}: Invalid value: "{level}": must be one of {", ".join(LEVELS)}')
    if minor is None:
        raise ValueError(f'PodSecurity: defaults.{mode}-version: Invalid value: "{version}": must be "latest" or "v1.x"')
    return Standard(level, minor)
