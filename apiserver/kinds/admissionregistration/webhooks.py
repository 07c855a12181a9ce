"""The rules that both kinds of webhook configurations share."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from apiserver.kinds.admissionregistration.expressions import OBJECTS, RIGHTS, match_conditions_causes
from apiserver.kinds.cells import age_cell, fill, name_cell
from apiserver.kinds.checks import validate_label_selector
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from apiserver.request import Context
from navarch.api import names
from navarch.api.errors import Cause, duplicate, invalid, not_supported, required

GROUP = "admissionregistration.k8s.io"
OPERATIONS = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
SIDE_EFFECTS = ("None", "NoneOnDryRun")
VERSIONS = ("v1", "v1beta1")
CONDITION_VARIABLES = OBJECTS + RIGHTS


class WebhooksStrategy(Strategy):
    unconditional_update = False
    reinvokes = False
    columns = (NAME_COLUMN, Column("Webhooks", "integer"), AGE_COLUMN)

    def default(self, obj: Tree) -> None:
        for hook in obj.get("webhooks") or ():
            fill(hook, failurePolicy="Fail", matchPolicy="Equivalent", timeoutSeconds=10)
            fill(hook, namespaceSelector={}, objectSelector={})
            if self.reinvokes:
                fill(hook, reinvocationPolicy="Never")
            for rule in hook.get("rules") or ():
                fill(rule, scope="*")
            service = (hook.get("clientConfig") or {}).get("service")
            if service is not None:
                fill(service, port=443)

    def prepare_create(self, context: Context, obj: Tree) -> None:
        obj["metadata"]["generation"] = 1

    def validate(self, obj: Tree) -> list[Cause]:
        out: list[Cause] = []
        earlier: list[str] = []
        for i, hook in enumerate(obj.get("webhooks") or ()):
            at, name = f"webhooks[{i}]", hook.get("name") or ""
            out += webhook_causes(hook, at, self.reinvokes)
            if name in earlier:
                out.append(duplicate(f"{at}.name", name))
            earlier.append(name)
        return out

    def cells(self, obj: Tree, now: float) -> list[Any]:
        return [name_cell(obj), len(obj.get("webhooks") or ()), age_cell(obj, now)]


def webhook_causes(hook: Tree, at: str, reinvokes: bool) -> list[Cause]:
    out: list[Cause] = []
    name = hook.get("name") or ""
    if not name:
        out.append(required(f"{at}.name"))
    else:
        out += [invalid(f"{at}.name", name, m) for m in names.dns_subdomain(name)]
        if name.count(".") < 2:
            text = "should be a domain with at least three segments separated by dots"
            out.append(invalid(f"{at}.name", name, text))
    for i, rule in enumerate(hook.get("rules") or ()):
        out += rule_causes(rule, f"{at}.rules[{i}]")
    for field, choices in (
        ("failurePolicy", ("Fail", "Ignore")),
        ("matchPolicy", ("Equivalent", "Exact")),
        ("sideEffects", SIDE_EFFECTS),
        *((("reinvocationPolicy", ("IfNeeded", "Never")),) if reinvokes else ()),
    ):
        value = hook.get(field)
        if value is None:
            out.append(required(f"{at}.{field}", f"must specify one of {', '.join(choices)}"))
        elif value not in choices:
            out.append(not_supported(f"{at}.{field}", value, choices))
    seconds = hook.get("timeoutSeconds") or 0
    if not 1 <= seconds <= 30:
        out.append(invalid(f"{at}.timeoutSeconds", seconds, "the timeout value must be between 1 and 30 seconds"))
    for field in ("namespaceSelector", "objectSelector"):
        out += validate_label_selector(hook.get(field), f"{at}.{field}")
    versions = hook.get("admissionReviewVersions") or []
    where = f"{at}.admissionReviewVersions"
    if not versions:
        out.append(required(where, f"must specify one of {', '.join(VERSIONS)}"))
    for i, version in enumerate(versions):
        if version in versions[:i]:
            out.append(invalid(f"{where}[{i}]", version, "duplicate version"))
        else:
            out += [invalid(f"{where}[{i}]", version, m) for m in names.dns1035(version)]
    if versions and not set(VERSIONS) & set(versions):
        out.append(invalid(where, versions, f"must include at least one of {', '.join(VERSIONS)}"))
    out += check_client(hook.get("clientConfig") or {}, f"{at}.clientConfig")
    conditions = hook.get("matchConditions") or ()
    return out + match_conditions_causes(conditions, f"{at}.matchConditions", CONDITION_VARIABLES)


OTHERS = {"operations": "operations", "apiGroups": "API groups", "apiVersions": "API versions"}


def rule_causes(rule: Tree, at: str) -> list[Cause]:
    """Validates operations and resources of a rule. Returns causes, empty when they are valid."""
    out: list[Cause] = []
    for field, word in OTHERS.items():
        values = rule.get(field) or []
        if not values:
            out.append(required(f"{at}.{field}"))
        elif "*" in values and len(values) > 1:
            out.append(invalid(f"{at}.{field}", values, f"if '*' is present, must not specify other {word}"))
        if field == "operations":
            for i, operation in enumerate(values):
                if operation not in OPERATIONS:
                    out.append(not_supported(f"{at}.operations[{i}]", operation, OPERATIONS))
    for i, version in enumerate(rule.get("apiVersions") or ()):
        if not version:
            out.append(required(f"{at}.apiVersions[{i}]"))
    out += resources(rule.get("resources") or [], f"{at}.resources")
    if rule.get("scope") not in ("*", "Cluster", "Namespaced"):
        out.append(not_supported(f"{at}.scope", rule.get("scope") or "", ["*", "Cluster", "Namespaced"]))
    return out


def resources(resources: list[str], at: str) -> list[Cause]:
    out = [] if resources else [required(at)]
    every_sub: list[str] = []  # resources of which all subresources are named
    every_resource: list[str] = []  # subresources that are named for all resources
    for i, text in enumerate(resources):
        if not text:
            out.append(required(f"{at}[{i}]"))
        resource, slash, sub = text.partition("/")
        if not slash:
            continue
        if resource in every_sub:
            out.append(invalid(f"{at}[{i}]", text, f"if '{resource}/*' is present, must not specify {text}"))
        if sub in every_resource:
            out.append(invalid(f"{at}[{i}]", text, f"if '*/{sub}' is present, must not specify {text}"))
        every_sub += [resource] if sub == "*" else []
        every_resource += [sub] if resource == "*" else []
    if "*/*" in resources and len(resources) > 1:
        out.append(invalid(at, resources, "if '*/*' is present, must not specify other resources"))
    if "*" in resources and any("/" not in r and r != "*" for r in resources):
        text = "if '*' is present, must not specify other resources without subresources"
        out.append(invalid(at, resources, text))
    return out


def check_client(config: Tree, at: str) -> list[Cause]:
    """Validates a clientConfig. Returns causes, empty when it is valid."""
    url, service = config.get("url"), config.get("service")
    if bool(url) == bool(service):
        return [required(at, "exactly one of url or service is required")]
    if url:
        parts = urlsplit(url)
        problems = [
            (parts.scheme != "https", "'https' is the only allowed URL scheme; desired format: https://host[/path]"),
            (not parts.hostname, "host must be specified; desired format: https://host[/path]"),
            (bool(parts.username or parts.password), "user information is not permitted in the URL"),
            (bool(parts.fragment), "fragments are not permitted in the URL"),
            (bool(parts.query), "query parameters are not permitted in the URL"),
        ]
        return [invalid(f"{at}.url", url, text) for wrong, text in problems if wrong]
    out: list[Cause] = []
    for field in ("name", "namespace"):
        if not (service or {}).get(field):
            out.append(required(f"{at}.service.{field}", f"service {field} is required"))
    port = (service or {}).get("port", 443)
    if not 0 < port < 65536:
        text = "port is not valid: must be between 1 and 65535, inclusive"
        out.append(invalid(f"{at}.service.port", port, text))
    return out
