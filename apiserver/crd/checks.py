"""Checks of a definition's spec and status, schemas aside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apiserver.crd import paths
from apiserver.crd.conversion import REVIEWS, bundle_problem
from apiserver.crd.structural import check_schema
from apiserver.kinds.admissionregistration.webhooks import check_client
from navarch.api import names
from navarch.api.errors import Cause, duplicate, forbidden, invalid, not_supported, required, too_long, too_many
from navarch.api.patch import same

Tree = dict[str, Any]
COLUMN_TYPES = ("integer", "number", "string", "boolean", "date")
COLUMN_FORMATS = ("int32", "int64", "float", "double", "byte", "date", "date-time", "password")
MAX_SELECTABLE = 8
AT_ROOT = (
    "Description", "Type", "Format", "Title", "Maximum", "ExclusiveMaximum", "Minimum", "ExclusiveMinimum", "MaxLength",
    "MinLength", "Pattern", "MaxItems", "MinItems", "UniqueItems", "MultipleOf", "Required", "Items", "Properties",
    "ExternalDocs", "Example", "XPreserveUnknownFields", "XValidations",
)  # fmt: skip
NOT_AT_ROOT = (
    "allOf", "anyOf", "oneOf", "not", "enum", "default", "nullable", "additionalProperties", "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string", "x-kubernetes-list-type", "x-kubernetes-list-map-keys",
)  # fmt: skip
WARNING_LENGTH = 256


def check_spec(spec: Tree, old: Tree | None = None) -> list[Cause]:
    """Everything that is wrong with spec. Parts of schemas that ``old`` has too are not looked at again."""
    out: list[Cause] = []
    group = spec.get("group") or ""
    if not group:
        out.append(required("spec.group"))
    elif faults := names.dns_subdomain(group):
        out.append(invalid("spec.group", group, ",".join(faults)))
    elif "." not in group:
        out.append(invalid("spec.group", group, "should be a domain with at least one dot"))
    scope = spec.get("scope") or ""
    if not scope:
        out.append(required("spec.scope"))
    elif scope not in ("Cluster", "Namespaced"):
        out.append(not_supported("spec.scope", scope, ["Cluster", "Namespaced"]))
    if spec.get("preserveUnknownFields") and not (old or {}).get("preserveUnknownFields"):
        text = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"
        out.append(invalid("spec.preserveUnknownFields", True, text))
    versions = spec.get("versions") or []
    before = {v.get("name"): v for v in (old or {}).get("versions") or ()}
    version_names: list[str] = []
    for i, version in enumerate(versions):
        at, name = f"spec.versions[{i}]", version.get("name") or ""
        if faults := names.dns1035(name):
            out.append(invalid(f"{at}.name", name, ",".join(faults)))
        if name in version_names:
            out.append(invalid("spec.versions", [v.get("name") for v in versions], "must contain unique version names"))
        version_names.append(name)
        out += _check_version(version, at, before.get(name))
    storage = [v for v in versions if v.get("storage")]
    if len(storage) != 1:
        text = "must have exactly one version marked as storage version"
        out.append(invalid("spec.versions", version_names, text))
    out += _check_names(spec.get("names") or {}, "spec.names")
    return out + _check_conversion(spec.get("conversion") or {}, old)


def check_status(obj: Tree) -> list[Cause]:
    """Validates storedVersions and the accepted names. Returns causes, empty when they are valid."""
    out: list[Cause] = []
    status, spec = obj.get("status") or {}, obj.get("spec") or {}
    stored = status.get("storedVersions") or []
    versions = {v.get("name"): v for v in spec.get("versions") or ()}
    for i, name in enumerate(stored):
        if name not in versions:
            out.append(invalid(f"status.storedVersions[{i}]", name, "missing from spec.versions; v1 was previously a storage "
                               "version, and must remain in spec.versions until a storage migration ensures no data remains "
                               "persisted in v1 and removes v1 from status.storedVersions".replace("v1", name)))  # fmt: skip
    for name, version in versions.items():
        if version.get("storage") and name not in stored:
            out.append(invalid("status.storedVersions", stored, f"must have the storage version {name}"))
    return out


def _check_version(version: Tree, at: str, old: Tree | None) -> list[Cause]:
    out: list[Cause] = []
    warning = version.get("deprecationWarning")
    if warning is not None:
        if not version.get("deprecated"):
            out.append(invalid(f"{at}.deprecationWarning", warning, "can only be set for deprecated versions"))
        if len(warning.encode()) > WARNING_LENGTH:
            out.append(too_long(f"{at}.deprecationWarning", WARNING_LENGTH))
        if not warning:
            out.append(invalid(f"{at}.deprecationWarning", warning, "must not be empty"))
    schema = (version.get("schema") or {}).get("openAPIV3Schema")
    path = f"{at}.schema.openAPIV3Schema"
    if schema is None:
        out.append(required(path, "schemas are required"))
    else:
        if "status" in (version.get("subresources") or {}):
            out += _check_root(schema, path)
        before = (((old or {}).get("schema")) or {}).get("openAPIV3Schema")
        if not same(before, schema):
            out += check_schema(schema, path)
    out += _check_columns(version.get("additionalPrinterColumns") or [], f"{at}.additionalPrinterColumns")
    subresources = version.get("subresources") or {}
    if subresources.get("scale") is not None:
        out += _check_scale(subresources["scale"], f"{at}.subresources.scale")
    return out + _check_selectable(version.get("selectableFields") or [], f"{at}.selectableFields", schema)


def _check_root(schema: Tree, at: str) -> list[Cause]:
    """With the status subresource: what stands at the root must not concern spec and status together."""
    if schema.get("type") not in (None, "", "object"):
        text = 'only "object" is allowed as the type at the root of the schema if the status subresource is enabled'
        return [invalid(f"{at}.type", schema["type"], text)]
    if any(schema.get(word) for word in NOT_AT_ROOT):
        text = f"only [{' '.join(AT_ROOT)}] fields are allowed at the root of the schema if the status subresource is enabled"
        return [invalid(at, schema, text)]
    return []


def _check_names(spec_names: Tree, at: str) -> list[Cause]:
    out: list[Cause] = []

    def label(field: str, value: str, path: str = "") -> None:
        if faults := names.dns1035(value):
            out.append(invalid(path or f"{at}.{field}", value, ",".join(faults)))

    plural, kind, listed = spec_names.get("plural") or "", spec_names.get("kind") or "", spec_names.get("listKind") or ""
    if plural:
        label("plural", plural)
    else:
        out.append(required(f"{at}.plural"))
    if singular := spec_names.get("singular"):
        label("singular", singular)
    for field, value in (("kind", kind), ("listKind", listed)):
        if not value:
            out.append(required(f"{at}.{field}"))
        elif faults := names.dns1035(value.lower()):
            text = "may have mixed case, but should otherwise match: " + ",".join(faults)
            out.append(invalid(f"{at}.{field}", value, text))
    for i, name in enumerate(spec_names.get("shortNames") or ()):
        label("", name, f"{at}.shortNames[{i}]")
    if kind and kind == listed:
        out.append(invalid(f"{at}.listKind", listed, "kind and listKind may not be the same"))
    for i, name in enumerate(spec_names.get("categories") or ()):
        label("", name, f"{at}.categories[{i}]")
    return out


def _check_conversion(conversion: Tree, old: Tree | None) -> list[Cause]:
    """Paths are those of Kubernetes' internal version, as its messages have them. A good caBundle must not become a bad
    one; with one that was never good, the definition is just not served."""
    strategy, webhook = conversion.get("strategy") or "", conversion.get("webhook") or {}
    at = "spec.conversion"
    if not strategy:
        return [required(f"{at}.strategy")]
    if strategy not in ("None", "Webhook"):
        return [not_supported(f"{at}.strategy", strategy, ["None", "Webhook"])]
    client, reviews = webhook.get("clientConfig"), webhook.get("conversionReviewVersions") or []
    if strategy == "None":
        text = "should not be set when strategy is not set to Webhook"
        named = [("webhookClientConfig", client), ("conversionReviewVersions", reviews)]
        return [forbidden(f"{at}.{name}", text) for name, value in named if value]
    out: list[Cause] = []
    if client is None:
        out.append(required(f"{at}.webhookClientConfig", "required when strategy is set to Webhook"))
    else:
        out += check_client(client, f"{at}.webhookClientConfig")
        problem = bundle_problem(conversion)
        if problem and old is not None and not bundle_problem(old.get("conversion") or {}):
            out.append(invalid(f"{at}.webhookClientConfig.caBundle", client["caBundle"], problem))
    at += ".conversionReviewVersions"
    if not reviews:
        return [*out, required(at)]
    for i, version in enumerate(reviews):
        if version in reviews[:i]:
            out.append(invalid(f"{at}[{i}]", version, "duplicate version"))
        out += [invalid(f"{at}[{i}]", version, text) for text in names.dns1035(version)]
    if not set(REVIEWS) & set(reviews):
        out.append(invalid(at, reviews, f"must include at least one of {', '.join(REVIEWS)}"))
    return out


def _check_columns(columns: Sequence[Tree], at: str) -> list[Cause]:
    out: list[Cause] = []
    for i, column in enumerate(columns):
        path, kind, form = f"{at}[{i}]", column.get("type") or "", column.get("format") or ""
        if not column.get("name"):
            out.append(required(f"{path}.name"))
        if not kind:
            out.append(required(f"{path}.type", f"must be one of {','.join(sorted(COLUMN_TYPES))}"))
        elif kind not in COLUMN_TYPES:
            out.append(invalid(f"{path}.type", kind, f"must be one of {','.join(sorted(COLUMN_TYPES))}"))
        if form and form not in COLUMN_FORMATS:
            out.append(invalid(f"{path}.format", form, f"must be one of {','.join(sorted(COLUMN_FORMATS))}"))
        if not column.get("jsonPath"):
            out.append(required(f"{path}.jsonPath"))
        else:
            try:
                paths.compile_path(column["jsonPath"])
            except paths.PathError as error:
                out.append(invalid(f"{path}.jsonPath", column["jsonPath"], str(error)))
    return out


def _check_scale(scale: Tree, at: str) -> list[Cause]:
    out: list[Cause] = []
    for field, above, needed in (
        ("specReplicasPath", (".spec.",), True),
        ("statusReplicasPath", (".status.",), True),
        ("labelSelectorPath", (".spec.", ".status."), False),
    ):
        value = scale.get(field)
        if not value:
            if needed or value == "":
                out.append(required(f"{at}.{field}"))
        elif not paths.is_simple(value) or not value.startswith(".") or "[" in value:
            out.append(invalid(f"{at}.{field}", value, "should be a json path with only dot notation"))
        elif not value.startswith(above):
            where = " or ".join(a.rstrip(".") for a in above)
            out.append(invalid(f"{at}.{field}", value, f"should be a json path under {where}"))
    return out


def _check_selectable(fields: Sequence[Tree], at: str, schema: Tree | None) -> list[Cause]:
    out: list[Cause] = []
    if len(fields) > MAX_SELECTABLE:
        out.append(too_many(at, len(fields), MAX_SELECTABLE))
    texts: list[str] = []
    for i, field in enumerate(fields):
        path, text = f"{at}[{i}].jsonPath", field.get("jsonPath") or ""
        if not text:
            out.append(required(path))
            continue
        if text in texts:
            out.append(duplicate(path, text))
        texts.append(text)
        if not paths.is_simple(text):
            out.append(invalid(path, text, "is an invalid path: must be a simple path of fields"))
            continue
        field_schema: Any = schema or {}
        steps = paths.simple(text)
        for step in steps:
            field_schema = (field_schema.get("properties") or {}).get(step) if isinstance(field_schema, dict) else None
        if steps[0] == "metadata":
            out.append(invalid(path, text, "must not point to fields in metadata"))
        elif not field_schema:
            out.append(invalid(path, text, "does not refer to a valid field"))
        elif field_schema.get("type") not in ("string", "integer", "boolean"):
            out.append(invalid(path, text, "must point to a field of type string, boolean or integer. Enum string fields "
                               "and strings with formats are allowed."))  # fmt: skip
    return out

