"""The EncryptionConfiguration (apiserver.config.k8s.io/v1): which resources are encrypted, how, with which keys."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from apiserver.encryption.providers import (
    AES_SIZES,
    SECRETBOX_SIZES,
    AesCbc,
    AesGcm,
    Identity,
    Noise,
    Provider,
    SecretBox,
)

Tree = dict[str, Any]
VERSION, KIND = "apiserver.config.k8s.io/v1", "EncryptionConfiguration"
_FACTORIES: dict[str, tuple[Callable[[str, bytes, Noise], Provider], tuple[int, ...]]] = {
    "aesgcm": (AesGcm, AES_SIZES), "aescbc": (AesCbc, AES_SIZES), "secretbox": (SecretBox, SECRETBOX_SIZES),
}  # fmt: skip
PROVIDERS = (*_FACTORIES, "identity")


class Rule(NamedTuple):
    """``resources``: RESOURCE, RESOURCE.GROUP, ``*.`` (the core group), ``*.GROUP`` or ``*.*``. The first provider
    writes, all read."""

    resources: tuple[str, ...]
    providers: tuple[Provider, ...]

    def covers(self, group: str, resource: str) -> bool:
        own = f"{resource}.{group}" if group else resource
        return any(pattern in (own, f"*.{group}", "*.*") for pattern in self.resources)


def load(path: str, noise: Noise) -> tuple[Rule, ...]:
    """Raises OSError, ValueError with all that is wrong; keys are never shown."""
    try:
        tree = yaml.safe_load(Path(path).read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML, line {getattr(getattr(error, 'problem_mark', None), 'line', -1) + 1}") from None
    rules, problems = parse(tree if isinstance(tree, dict) else {}, noise)
    if problems:
        raise ValueError(f"{path}: " + "; ".join(problems))
    return rules


def parse(tree: Tree, noise: Noise) -> tuple[tuple[Rule, ...], list[str]]:
    """The rules, and what is wrong with them."""
    problems: list[str] = []
    if (tree.get("apiVersion"), tree.get("kind")) != (VERSION, KIND):
        problems.append(f"apiVersion and kind must be {VERSION} and {KIND}")
    problems += [f'unknown field "{f}"' for f in tree if f not in ("apiVersion", "kind", "resources")]
    rules: list[Rule] = []
    if not tree.get("resources"):
        problems.append("resources: Required value: at least one entry")
    resource_names: list[str] = []
    for i, one in enumerate(tree.get("resources") or ()):
        at = f"resources[{i}]"
        names = tuple(one.get("resources") or ())
        if not names:
            problems.append(f"{at}.resources: Required value")
        for j, name in enumerate(names):
            problems += [f"{at}.resources[{j}]: Invalid value: {name!r}: {m}" for m in _name_problems(name, resource_names)]
            resource_names.append(name)
        providers: list[Provider] = []
        if not one.get("providers"):
            problems.append(f"{at}.providers: Required value")
        for j, provider in enumerate(one.get("providers") or ()):
            _add(provider, f"{at}.providers[{j}]", noise, providers, problems)
        rules.append(Rule(names, tuple(providers)))
    return tuple(rules), problems


def _name_problems(name: str, names: list[str]) -> list[str]:
    if name != name.lower():
        return ["resource names are in lower case"]
    if name == "*":
        return ["use *.* for all resources, *. for the core group's"]
    if name in names:
        return ["is there twice"]
    group = name.partition(".")[2] if "." in name else ""
    for earlier in names:
        if earlier == "*.*" or (earlier.startswith("*.") and earlier[2:] == group and name != "*.*"):
            return [f"is covered by {earlier} before it, and would have no effect"]
    return []


def _add(one: Tree, at: str, noise: Noise, providers: list[Provider], problems: list[str]) -> None:
    if not isinstance(one, dict) or len(one) != 1 or next(iter(one)) not in PROVIDERS:
        named = ", ".join(one) if isinstance(one, dict) else one
        extra = "; a key management service (kms) is not supported" if "kms" in str(named) else ""
        problems.append(f"{at}: Invalid value: {named}: must be exactly one of {', '.join(PROVIDERS)}{extra}")
        return
    ((kind, options),) = one.items()
    if kind == "identity":
        providers.append(Identity())
        return
    make, sizes = _FACTORIES[kind]
    keys = (options or {}).get("keys") or ()
    if not keys:
        problems.append(f"{at}.{kind}.keys: Required value: at least one key")
    for k, key in enumerate(keys):
        where, name = f"{at}.{kind}.keys[{k}]", key.get("name") or ""
        if not name or ":" in name:
            problems.append(f"{where}.name: Invalid value: {name!r}: must not be empty, nor hold a ':'")
        try:
            secret = base64.b64decode(key.get("secret") or "", validate=True)
        except (binascii.Error, ValueError, TypeError):
            problems.append(f"{where}.secret: Invalid value: REDACTED: secrets must be base64 encoded")
            continue
        if len(secret) not in sizes:
            allowed = " or ".join(map(str, sizes))
            problems.append(f"{where}.secret: Invalid value: REDACTED: must be {allowed} bytes long, is {len(secret)}")
            continue
        provider = make(name, secret, noise)
        if any(provider.prefix == other.prefix for other in providers):
            problems.append(f"{where}.name: Duplicate value: {name!r}")
        providers.append(provider)
