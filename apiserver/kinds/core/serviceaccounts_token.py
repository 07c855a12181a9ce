"""serviceaccounts/token: a token for a service account, bound to a pod or a secret if the request says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apiserver.authn.tokens import Reference, TokenIssuer
from apiserver.kinds.core.pods.binding import is_dry_run
from apiserver.registry.resources import Resources
from apiserver.registry.subresources import Endpoint, EndpointKey
from apiserver.request import Admission, Attributes, Context
from navarch.api.errors import BadRequest, Cause, NotFound, invalid, resource_conflict, resource_invalid
from navarch.api.kinds import Kind
from navarch.api.times import format_time

Tree = dict[str, Any]
TOKEN_REQUEST = Kind("authentication.k8s.io", "v1", "TokenRequest", "tokenrequests")
GROUP = TOKEN_REQUEST.group
DEFAULT_SECONDS, MIN_SECONDS, MAX_SECONDS = 3600, 600, 1 << 32
ISSUED = "authentication.kubernetes.io/issued-credential-id"
BINDABLE = {("v1", "Pod"): "pods", ("v1", "Secret"): "secrets", ("v1", "Node"): "nodes"}


class TokenEndpoint:
    def __init__(self, resources: Resources, admission: Admission, issuer: TokenIssuer) -> None:
        self.resources, self.admission, self.issuer = resources, admission, issuer

    async def __call__(
        self, context: Context, namespace: str, name: str, body: Tree, query: Mapping[str, str]
    ) -> Tree:
        """Raises NotFound, Invalid, Conflict (another uid than asked for)."""
        account = await self.resources["", "serviceaccounts"].get_tree(namespace, name)
        if body.setdefault("spec", {}).get("expirationSeconds") is None:
            body["spec"]["expirationSeconds"] = DEFAULT_SECONDS
        attributes = Attributes(
            context, "CREATE", self.resources["", "serviceaccounts"].kind, namespace, name, "token", body
        )
        await self.admission.admit(attributes)
        spec = body.setdefault("spec", {})  # what admission made of it
        if spec.get("expirationSeconds") is None:
            spec["expirationSeconds"] = DEFAULT_SECONDS
        _check(spec["expirationSeconds"])
        longest = self.issuer.longest
        if longest and spec["expirationSeconds"] > longest:
            context.warn(f"requested expiration of {spec['expirationSeconds']} seconds shortened to {longest} seconds")
            spec["expirationSeconds"] = longest
        own = body.get("metadata") or {}
        if own.get("name") and own["name"] != name:
            text = f"the name of the object ({own['name']}) does not match the name on the URL ({name})"
            raise BadRequest(text)
        if own.get("namespace") and own["namespace"] != namespace:
            raise BadRequest("the namespace of the provided object does not match the namespace sent on the request")
        await self.admission.validate(attributes)  # of nodes: it wants the audiences as they were asked for
        if not spec.get("audiences"):
            spec["audiences"] = list(self.issuer.audiences)
        bound: dict[str, Reference] = {}
        if spec.get("boundObjectRef"):
            bound = await self._bound(namespace, name, spec["boundObjectRef"])
        seconds = int(spec["expirationSeconds"])
        token = ""
        if not is_dry_run(query):
            reference = Reference(name, account["metadata"]["uid"])
            token = self.issuer.issue(namespace, reference, seconds=seconds, audiences=spec["audiences"], **bound)
            context.audit_annotations[ISSUED] = f"JTI={self.issuer.read(token).id}"
        expires = format_time(context.world.now() + seconds)
        metadata = {"name": name, "namespace": namespace, "creationTimestamp": format_time(context.world.now())}
        return {
            "kind": "TokenRequest",
            "apiVersion": f"{GROUP}/v1",
            "metadata": metadata,
            "spec": spec,
            "status": {"token": token, "expirationTimestamp": expires},
        }

    async def _bound(self, namespace: str, account: str, reference: Tree) -> dict[str, Reference]:
        """The objects that the token shall die with: a pod brings its node with it."""
        resource = BINDABLE.get((reference.get("apiVersion") or "", reference.get("kind") or ""))
        if resource is None:
            what = f"{reference.get('apiVersion', '')}, Kind={reference.get('kind', '')}"
            raise BadRequest(f"cannot bind token to object of type {what}")
        name = reference.get("name") or ""
        tree = await self.resources["", resource].get_tree("" if resource == "nodes" else namespace, name)
        uid = tree["metadata"]["uid"]
        if reference.get("uid") and reference["uid"] != uid:
            why = f"the UID in the bound object reference ({reference['uid']}) does not match the UID in record. "
            why += "The object might have been deleted and then recreated"
            raise resource_conflict(resource, "", name, why)
        out = {resource.removesuffix("s"): Reference(name, uid)}
        if resource == "pods":
            spec = tree.get("spec") or {}
            if (spec.get("serviceAccountName") or "") != account:
                text = "cannot bind token for serviceaccount"
                raise BadRequest(f'{text} "{account}" to pod running with different serviceaccount name.')
            if spec.get("nodeName"):
                out["node"] = await self._node(spec["nodeName"])
        return out

    async def _node(self, name: str) -> Reference:
        try:
            node = await self.resources["", "nodes"].get_tree("", name)
        except NotFound:
            return Reference(name, "")
        return Reference(name, node["metadata"]["uid"])


def _check(seconds: int) -> None:
    causes: list[Cause] = []
    path = "spec.expirationSeconds"
    if seconds < MIN_SECONDS:
        causes.append(invalid(path, seconds, "may not specify a duration less than 10 minutes"))
    if seconds > MAX_SECONDS:
        causes.append(invalid(path, seconds, "may not specify a duration larger than 2^32 seconds"))
    if causes:
        raise resource_invalid("TokenRequest", GROUP, "", causes)


def token_endpoints(
    resources: Resources, admission: Admission, issuer: TokenIssuer
) -> dict[EndpointKey, Endpoint]:
    handler = TokenEndpoint(resources, admission, issuer)
    return {EndpointKey("", "serviceaccounts", "token", "create"): Endpoint(handler, TOKEN_REQUEST)}
