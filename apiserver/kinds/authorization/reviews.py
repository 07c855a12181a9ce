"""Reviews: questions about users and permissions, answered and never stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from apiserver.authn.authenticator import Authenticator
from apiserver.authn.tokens import InvalidToken
from apiserver.authz.authorizer import Authorizer
from apiserver.authz.node import node_name
from apiserver.authz.rules import Rule
from apiserver.cache.cache import Cache
from apiserver.kinds.cells import kind
from apiserver.registry.subresources import Endpoint, EndpointKey
from apiserver.request import Context, RequestInfo, User, user_info
from navarch.api.errors import BadRequest, Cause, invalid, required, resource_invalid
from navarch.api.selectors import escaped
from navarch.api.times import format_time

Tree = dict[str, Any]
AUTHN, AUTHZ = "authentication.k8s.io", "authorization.k8s.io"


def _request_of(spec: Tree, what: str) -> RequestInfo:
    """The request that an access review asks about. Raises Invalid."""
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    causes: list[Cause] = []
    if resource is not None and path is not None:
        text = "cannot be specified in combination with resourceAttributes"
        causes.append(invalid("spec.nonResourceAttributes", path, text))
    if resource is None and path is None:
        text = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        causes.append(invalid("spec.resourceAttributes", None, text))
    if causes:
        raise resource_invalid(what, AUTHZ, "", causes)
    for field in ("fieldSelector", "labelSelector"):
        if resource is not None and (selector := resource.get(field)) is not None:
            causes += _selector_causes(selector, f"spec.resourceAttributes.{field}")
    if causes:
        raise resource_invalid(what, AUTHZ, "", causes)
    if path is not None:
        return RequestInfo((path.get("verb") or "").lower(), path.get("path") or "")
    assert resource is not None
    return RequestInfo(
        resource.get("verb") or "", "", True, resource.get("group") or "", resource.get("version") or "",
        resource.get("resource") or "", resource.get("subresource") or "", resource.get("namespace") or "",
        resource.get("name") or "", _selector(resource.get("fieldSelector"), escaped),
        _selector(resource.get("labelSelector"), str),
    )  # fmt: skip


def _selector(selector: Tree | None, value: Callable[[str], str]) -> str:
    """The selector of a review as a request writes it. What cannot be written so is left out: that asks for more."""
    if selector is None or selector.get("rawSelector"):
        return (selector or {}).get("rawSelector") or ""
    terms = []
    for one in selector.get("requirements") or ():
        key, operator, values = one["key"], one["operator"], one.get("values") or []
        if operator in ("In", "NotIn") and len(values) == 1:
            terms.append(f"{key}{'=' if operator == 'In' else '!='}{value(values[0])}")
        elif value is str:
            listed = f" {operator.lower()} ({','.join(values)})"
            terms.append({"Exists": key, "DoesNotExist": f"!{key}"}.get(operator, key + listed))
    return ",".join(terms)


OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")


def _selector_causes(selector: Tree, at: str) -> list[Cause]:
    """Validates the selector that a review asks about. Only the node authorizer looks at selectors: in RBAC a right to
    list is one to list everything."""
    raw, requirements = selector.get("rawSelector") or "", selector.get("requirements") or []
    if raw and requirements:
        return [invalid(f"{at}.rawSelector", raw, "may not specified at the same time as requirements")]
    if not raw and not requirements:
        return [required(at, f"when {at} is specified, requirements or rawSelector is required")]
    out: list[Cause] = []
    for i, one in enumerate(requirements):
        where, operator, values = f"{at}.requirements[{i}]", one.get("operator") or "", one.get("values") or []
        if not one.get("key"):
            out.append(required(f"{where}.key", "must be specified"))
        if operator in ("In", "NotIn"):
            if not values:
                out.append(required(f"{where}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
        elif operator in OPERATORS:
            if values:
                text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                out.append(Cause("FieldValueForbidden", f"Forbidden: {text}", f"{where}.values"))
        else:
            out.append(invalid(f"{where}.operator", operator, "not a valid selector operator"))
    return out


def _rule_lists(rules: list[Rule]) -> tuple[list[Tree], list[Tree]]:
    resources, urls = [], []
    for rule in rules:
        if rule.urls:
            urls.append({"verbs": sorted(rule.verbs), "nonResourceURLs": list(rule.urls)})
        if rule.resources:
            entry = {
                "verbs": sorted(rule.verbs),
                "apiGroups": sorted(rule.groups),
                "resources": sorted(rule.resources),
            }
            resources.append(entry | ({"resourceNames": sorted(rule.names)} if rule.names else {}))
    return resources, urls


class Reviews:
    """The handlers. A review comes back as it was asked, with its status filled in."""

    def __init__(self, cache: Cache, authenticator: Authenticator, authorizer: Authorizer) -> None:
        self.cache, self.authenticator, self.authorizer = cache, authenticator, authorizer

    def _status(self, user: User, info: RequestInfo) -> Tree:
        decision = self.authorizer.authorize(user, info)
        return {"allowed": decision.allowed} | ({"reason": decision.reason} if decision.reason else {})

    async def self_access(
        self, context: Context, namespace: str, name: str, body: Tree, query: Mapping[str, str]
    ) -> Tree:
        info = _request_of(body.get("spec") or {}, "SelfSubjectAccessReview")
        return body | {"status": self._status(context.user, info)}

    async def access(
        self, context: Context, namespace: str, name: str, body: Tree, query: Mapping[str, str]
    ) -> Tree:
        return self._access(body, "SubjectAccessReview")

    async def local_access(
        self, context: Context, namespace: str, name: str, body: Tree, query: Mapping[str, str]
    ) -> Tree:
        spec_namespace = ((body.get("spec") or {}).get("resourceAttributes") or {}).get("namespace") or ""
        if spec_namespace != namespace:
            raise BadRequest(f"spec.resourceAttributes.namespace must match namespace: {namespace}")
        return self._access(body, "LocalSubjectAccessReview")

    def _access(self, body: Tree, what: str) -> Tree:
        spec = body.get("spec") or {}
        info = _request_of(spec, what)
        groups = tuple(spec.get("groups") or ())
        if not spec.get("user") and not groups:
            text = "at least one of user or group must be specified"
            raise resource_invalid(what, AUTHZ, "", [invalid("spec.user", spec.get("user") or "", text)])
        user = User(spec.get("user") or "", groups, spec.get("uid") or "", spec.get("extra") or {})
        return body | {"status": self._status(user, info)}

    async def self_rules(
        self, context: Context, namespace: str, name: str, body: Tree, query: Mapping[str, str]
    ) -> Tree:
        of_namespace = (body.get("spec") or {}).get("namespace") or ""
        if not of_namespace:
            raise BadRequest("no namespace on request")
        resources, urls = _rule_lists(self.authorizer.rbac.rules_for(context.user, of_namespace))
        status: Tree = {"resourceRules": resources, "nonResourceRules": urls, "incomplete": False}
        if node_name(context.user):
            text = "node authorizer does not support user rule resolution for this user"
            status |= {"incomplete": True, "evaluationError": text}
        return body | {"status": status}

    async def token(
        self, context: Context, namespace: str, name: str, body: Tree, query: Mapping[str, str]
    ) -> Tree:
        spec = body.get("spec") or {}
        if not spec.get("token"):
            raise BadRequest("token is required for TokenReview in authentication")
        audiences_ = tuple(spec.get("audiences") or ()) or self.authenticator.audiences
        await self.cache.current()  # the token's account or pod may have come or gone a moment ago
        try:
            identity = await self.authenticator.identify(spec["token"], audiences_)
        except InvalidToken as error:
            return body | {"status": {"user": {}, "error": str(error)}}
        audiences = [a for a in audiences_ if a in (identity.audiences or ())]
        return body | {"status": {"authenticated": True, "user": user_info(identity.user), "audiences": audiences}}

    async def self_subject(
        self, context: Context, namespace: str, name: str, body: Tree, query: Mapping[str, str]
    ) -> Tree:
        metadata = (body.get("metadata") or {}) | {"creationTimestamp": format_time(context.world.now())}
        return body | {"metadata": metadata, "status": {"userInfo": user_info(context.user)}}


def review_endpoints(
    cache: Cache, authenticator: Authenticator, authorizer: Authorizer
) -> dict[EndpointKey, Endpoint]:
    reviews = Reviews(cache, authenticator, authorizer)
    handlers: list[tuple[str, str, Callable[..., Any]]] = [
        (AUTHZ, "SelfSubjectAccessReview", reviews.self_access),
        (AUTHZ, "SelfSubjectRulesReview", reviews.self_rules),
        (AUTHZ, "SubjectAccessReview", reviews.access),
        (AUTHZ, "LocalSubjectAccessReview", reviews.local_access),
        (AUTHN, "TokenReview", reviews.token),
        (AUTHN, "SelfSubjectReview", reviews.self_subject),
    ]
    out = {}
    for group, word, handler in handlers:
        of = kind(f"{group}/v1", word)
        out[EndpointKey(group, of.resource, "", "create")] = Endpoint(handler, of)
    return out
