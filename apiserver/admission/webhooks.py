"""MutatingAdmissionWebhook and ValidatingAdmissionWebhook: admission by whom the configurations name.

Requests pay for webhooks only if a rule of one speaks of their kind: the plugins handle exactly those, and the chain is
told when the configurations change.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import orjson

from apiserver.admission.chain import BasePlugin
from apiserver.admission.webhookrules import (
    ConditionError,
    Hook,
    compile_hooks,
    conditions_hold,
    matching_kind,
    selects,
)
from apiserver.crd.custom import CustomStrategy
from apiserver.registry.webhooks import GROUP
from apiserver.request import Attributes, DeleteOptions, WriteOptions
from apiserver.webhookclient import WebhookClient, WebhookError
from navarch.api import pruning
from navarch.api.errors import BadRequest, Expired, InternalError, StatusError, from_status
from navarch.api.kinds import Kind
from navarch.api.patch.json import apply_json

if TYPE_CHECKING:
    from apiserver.server import APIServer

Tree = dict[str, Any]
MUTATING, VALIDATING = "mutatingwebhookconfigurations", "validatingwebhookconfigurations"


class _Webhooks(BasePlugin):
    """What both plugins do."""

    resource = ""

    def __init__(self, server: APIServer, client: WebhookClient) -> None:
        self.server, self.client = server, client
        self.hooks: list[Hook] = []

    def handles(self, operation: str, kind: Kind) -> bool:
        if kind.group == GROUP:
            return False  # nobody locks himself out
        others = self._equivalents(kind)
        return any(hook.rules(operation, k) for hook in self.hooks for k in (kind, *others))

    def _equivalents(self, kind: Kind) -> list[Kind]:
        """The same custom resource in its other versions."""
        found = [r for key, r in self.server.served.items() if (key[0], key[2]) == (kind.group, kind.resource)]
        return [r.kind for r in found if isinstance(r.strategy, CustomStrategy) and r.kind != kind]

    async def prepare(self, server: APIServer) -> None:
        """Takes the configurations as they are now."""
        entries = server.cache.list(f"/registry/{self.resource}/").entries
        self.hooks = compile_hooks(entry.tree() for entry in entries)
        server.admission.replace(server.admission.plugins)

    async def follow(self, server: APIServer) -> None:
        """Keeps up with the configurations."""
        while True:
            await server.cache.wait_ready()
            try:
                watcher = server.cache.watch(f"/registry/{self.resource}/")
            except Expired:
                continue
            with watcher:
                while await watcher.batch():
                    await self.prepare(server)

    def _namespace_labels(self, attributes: Attributes) -> dict[str, str] | None:
        if attributes.kind.resource == "namespaces" and not attributes.kind.group:
            tree = attributes.obj or attributes.old or {}
            return dict((tree.get("metadata") or {}).get("labels") or {})
        if not attributes.namespace or not attributes.kind.namespaced:
            return None
        entry = self.server.cache.get("/registry/namespaces/", None, attributes.namespace)
        return dict(entry.labels) if entry is not None else {}

    def wanted(self, attributes: Attributes) -> list[tuple[Hook, Kind]]:
        """The webhooks to ask about a request, each with the kind that it wants to see. Raises StatusError."""
        out: list[tuple[Hook, Kind]] = []
        labels = self._namespace_labels(attributes)
        others = self._equivalents(attributes.kind)
        for hook in self.hooks:
            kind = matching_kind(hook, attributes, others)
            if kind is None or not selects(hook, attributes, labels):
                continue
            if hook.conditions:
                request = self._request(attributes, kind)
                variables = {"object": request.get("object"), "oldObject": request.get("oldObject"), "request": request}
                try:
                    if not conditions_hold(hook, variables):
                        continue
                except ConditionError as error:
                    if hook.ignores:
                        continue
                    raise InternalError(f'Internal error occurred: failed calling webhook "{hook.name}": {error}') from None
            out.append((hook, kind))
        return out

    def _request(self, attributes: Attributes, kind: Kind) -> Tree:
        user, asked = attributes.context.user, attributes.kind

        def gvk(k: Kind) -> Tree:
            return {"group": k.group, "version": k.version, "kind": k.kind}

        def gvr(k: Kind) -> Tree:
            return {"group": k.group, "version": k.version, "resource": k.resource}

        def shaped(tree: Tree | None) -> Tree | None:
            return tree if tree is None or kind == asked else tree | {"apiVersion": kind.api_version}

        person: Tree = {"username": user.name, "groups": list(user.groups)}
        if user.uid:
            person["uid"] = user.uid
        if user.extra:
            person["extra"] = user.extra
        out: Tree = {
            "uid": self.server.world.uid(), "kind": gvk(kind), "resource": gvr(kind), "requestKind": gvk(asked),
            "requestResource": gvr(asked), "name": attributes.name, "operation": attributes.operation, "userInfo": person,
            "object": shaped(attributes.obj), "oldObject": shaped(attributes.old), "dryRun": attributes.dry_run,
            "options": _options(attributes),
        }  # fmt: skip
        if attributes.namespace:
            out["namespace"] = attributes.namespace
        if attributes.subresource:
            out["subResource"] = out["requestSubResource"] = attributes.subresource
        return out

    async def ask(self, hook: Hook, kind: Kind, attributes: Attributes) -> Tree | None:
        """The webhook's response; None if its failure is to be ignored. Raises StatusError for a denial or a failure."""
        if attributes.dry_run and hook.tree.get("sideEffects") not in ("None", "NoneOnDryRun"):
            raise BadRequest(f'admission webhook "{hook.name}" does not support dry run')
        version = next(v for v in hook.tree["admissionReviewVersions"] if v in ("v1", "v1beta1"))
        request = self._request(attributes, kind)
        review = {"kind": "AdmissionReview", "apiVersion": f"admission.k8s.io/{version}", "request": request}
        try:
            answer = await self.client.call(hook.tree["clientConfig"], review, float(hook.tree.get("timeoutSeconds") or 10))
            response = _response(answer, review, version)
        except WebhookError as error:
            if hook.ignores:
                return None
            text = f'failed calling webhook "{hook.name}": {error}'
            raise InternalError(f"Internal error occurred: {text}", {"causes": [{"message": text}]}) from None
        for text in response.get("warnings") or ():
            attributes.context.warn(str(text))
        if not response.get("allowed"):
            raise denial(hook.name, response.get("status") or response.get("result") or {})
        return response


def _options(attributes: Attributes) -> Tree:
    options = attributes.options
    out: Tree = {"apiVersion": "meta.k8s.io/v1", "kind": f"{attributes.operation.capitalize()}Options"}
    if attributes.dry_run:
        out["dryRun"] = ["All"]
    if isinstance(options, DeleteOptions):
        if options.grace_period_seconds is not None:
            out["gracePeriodSeconds"] = options.grace_period_seconds
        if options.propagation_policy:
            out["propagationPolicy"] = options.propagation_policy
    elif isinstance(options, WriteOptions) and options.field_manager:
        out["fieldManager"] = options.field_manager
    return out


def _response(answer: Tree, review: Tree, version: str) -> Tree:
    """The response in an answer. Raises WebhookError."""
    wanted = f"admission.k8s.io/{version}"
    response = answer.get("response")
    if not isinstance(response, dict):
        raise WebhookError("failed to call webhook: the webhook response is absent")
    if version == "v1":
        if (answer.get("apiVersion"), answer.get("kind")) != (wanted, "AdmissionReview"):
            shown = f"{answer.get('apiVersion', '')}, Kind={answer.get('kind', '')}"
            raise WebhookError(f"received invalid webhook response: expected webhook response of {wanted}, "
                               f"Kind=AdmissionReview, got {shown}")  # fmt: skip
        uid = review["request"]["uid"]
        if response.get("uid") != uid:
            raise WebhookError(
                f'received invalid webhook response: expected response.uid="{uid}", got "{response.get("uid", "")}"'
            )
        if response.get("patch") and response.get("patchType") != "JSONPatch":
            raise WebhookError(
                f'received invalid webhook response: webhook returned response.patch but invalid response.patchType: '
                f'"{response.get("patchType", "")}"'
            )
    return response


def denial(name: str, status: Tree) -> StatusError:
    """The error that a client gets for a refusal."""
    text = f'admission webhook "{name}" denied the request'
    if message := status.get("message"):
        text += f": {message}"
    elif reason := status.get("reason"):
        text += f": {reason}"
    else:
        text += " without explanation"
    code = status.get("code") or 0
    tree = {k: v for k, v in status.items() if k in ("reason", "details")}
    error = from_status(tree | {"message": text, "code": code if code >= 400 else 400})
    if not status.get("reason"):
        error.status_reason = ""
    return error


class MutatingAdmissionWebhook(_Webhooks):
    name = "MutatingAdmissionWebhook"
    resource = MUTATING

    async def admit(self, attributes: Attributes) -> None:
        called: list[Hook] = []
        again: list[Hook] = []
        for hook, kind in self.wanted(attributes):
            if await self._call(hook, kind, attributes):
                again = [h for h in called if h.tree.get("reinvocationPolicy") == "IfNeeded"]
            called.append(hook)
        if again:
            for hook, kind in self.wanted(attributes):
                if hook in again:
                    await self._call(hook, kind, attributes)

    async def _call(self, hook: Hook, kind: Kind, attributes: Attributes) -> bool:
        """Asks, and changes the object; returns whether it changed."""
        response = await self.ask(hook, kind, attributes)
        obj = attributes.obj
        if response is None or not response.get("patch") or obj is None:
            return False
        before = orjson.dumps(obj)
        try:
            operations = orjson.loads(base64.b64decode(response["patch"]))
            new = apply_json(orjson.loads(before) | {"apiVersion": kind.api_version}, operations)
        except (ValueError, StatusError) as error:
            raise InternalError(f"Internal error occurred: {error}") from None
        if not isinstance(new, dict) or not isinstance(new.get("metadata"), dict):
            raise InternalError("Internal error occurred: the patch of a webhook leaves no object")
        new["apiVersion"] = attributes.kind.api_version
        at = (attributes.kind.group, attributes.kind.version, attributes.kind.resource)
        pruning.prepare(new, self.server.served[at].schema)
        obj.clear()
        obj.update(new)
        return orjson.dumps(obj) != before


class ValidatingAdmissionWebhook(_Webhooks):
    name = "ValidatingAdmissionWebhook"
    resource = VALIDATING

    async def validate(self, attributes: Attributes) -> None:
        wanted = self.wanted(attributes)
        if len(wanted) == 1:
            await self.ask(*wanted[0], attributes)
            return
        errors: dict[int, StatusError] = {}

        async def one(i: int, hook: Hook, kind: Kind) -> None:
            try:
                await self.ask(hook, kind, attributes)
            except StatusError as error:
                errors[i] = error

        async with self.server.world.task_group() as group:
            for i, (hook, kind) in enumerate(wanted):
                group.start(one(i, hook, kind), f"webhook {hook.name}")
        if errors:
            raise errors[min(errors)]
