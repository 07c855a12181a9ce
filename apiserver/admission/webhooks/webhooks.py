"""MutatingAdmissionWebhook and ValidatingAdmissionWebhook: admission by whom the configurations name.

Requests pay for webhooks only if a rule of one speaks of their kind: the plugins handle exactly those, and the chain is
told when the configurations change.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from apiserver.admission.audit import annotate
from apiserver.admission.cachefollower import follow
from apiserver.admission.chain import BasePlugin
from apiserver.admission.policies.conditions import ConditionError, Scope, conditions_hold, values_for
from apiserver.admission.webhooks.admissionreview import Reviewed, equivalents, namespace_labels
from apiserver.admission.webhooks.metrics import CALLING, NO_ERROR, WebhookMetrics
from apiserver.admission.webhooks.rules import Hook, compile_hooks, matching_kind, selects
from apiserver.kinds.admissionregistration.webhooks import CONDITION_VARIABLES, GROUP
from apiserver.registry import gate, scale
from apiserver.registry.resources import Resources
from apiserver.registry.scale import SCALE_SCHEMA
from apiserver.request import Attributes, Authorize
from apiserver.webhookclient import WebhookClient, WebhookError
from navarch.api import pruning
from navarch.api.errors import BadRequest, InternalError, StatusError, from_status, resource_forbidden
from navarch.api.kinds import Kind
from navarch.api.patch.json import apply_json
from navarch.api.serialization import DecodeError, decode_json, go_type

Tree = dict[str, Any]
Forget = Callable[[], None]
MUTATING, VALIDATING = "mutatingwebhookconfigurations", "validatingwebhookconfigurations"
_MUTATION, _PATCH = "mutation.webhook.admission.k8s.io/", "patch.webhook.admission.k8s.io/"


class _Webhooks(BasePlugin):
    """The behaviour that both plugins share."""

    resource = ""
    word = ""  # in the annotation of a failure that was ignored
    sort = ""  # in metrics

    def __init__(
        self, resources: Resources, client: WebhookClient, metrics: WebhookMetrics, authorize: Authorize, forget: Forget
    ) -> None:
        """``forget``: has the chain ask anew what the plugin handles."""
        self.resources, self.client, self.metrics, self.authorize = resources, client, metrics, authorize
        self.world, self.cache, self._forget = resources.backend.world, resources.backend.cache, forget
        self.hooks: list[Hook] = []
        # What the chain asked about: the webhooks that a kind may concern, and its other versions.
        self._candidates: dict[tuple[str, Kind], tuple[list[tuple[int, Hook]], list[Kind]]] = {}

    def handles(self, operation: str, kind: Kind) -> bool:
        if kind.group == GROUP:
            return False  # nobody locks himself out
        others = equivalents(self.resources, kind)
        matching = [(i, h) for i, h in enumerate(self.hooks) if any(h.rules(operation, k) for k in (kind, *others))]
        self._candidates[operation, kind] = matching, others
        return bool(matching)

    async def prepare(self) -> None:
        """Takes the configurations as they are now."""
        entries = self.cache.list(f"/registry/{self.resource}/").entries
        self.hooks = compile_hooks(entry.tree() for entry in entries)
        self._candidates.clear()
        self._forget()

    async def follow(self) -> None:
        """Keeps up with the configurations."""
        await follow(self.cache, f"/registry/{self.resource}/", self.prepare)

    async def to_ask(self, reviewed: Reviewed) -> list[tuple[int, Hook, Kind]]:
        """The webhooks to ask about a request, each with its place among all and the kind that it wants to see. Raises
        StatusError."""
        attributes = reviewed.attributes
        candidates, others = self._candidates.get((attributes.operation, attributes.kind), ((), ()))
        return [
            (i, hook, kind) for i, hook in candidates if (kind := await self._wants(hook, reviewed, others)) is not None
        ]

    async def _wants(self, hook: Hook, reviewed: Reviewed, others: Any) -> Kind | None:
        attributes = reviewed.attributes
        exact = hook.tree.get("matchPolicy") == "Exact"
        kind = matching_kind(hook.tree.get("rules") or (), exact, attributes, others)
        if kind is None or not selects(hook.tree, attributes, namespace_labels(self.cache, attributes)):
            return None
        if hook.error:
            if hook.ignores:
                return None
            raise resource_forbidden(attributes.kind.resource, attributes.kind.group, attributes.name, hook.error)
        if not hook.conditions:
            return kind
        values = await values_for(hook.names, reviewed, kind)
        if "namespaceObject" in values:
            values["namespaceObject"] = None  # only policies see it
        user = attributes.context.user
        scope = Scope(CONDITION_VARIABLES, values, user, self.authorize, self.world.monotonic)
        try:
            return kind if conditions_hold(hook.conditions, scope) else None
        except ConditionError as error:
            if hook.ignores:
                return None
            raise resource_forbidden(attributes.kind.resource, attributes.kind.group, attributes.name, str(error)) from None

    async def ask(self, hook: Hook, kind: Kind, reviewed: Reviewed, at: str) -> Tree | None:
        """The webhook's response; None if its failure is to be ignored. ``at``: the round and the place, for the audit
        log. Raises StatusError for a denial or a failure."""
        attributes = reviewed.attributes
        if attributes.dry_run and hook.tree.get("sideEffects") not in ("None", "NoneOnDryRun"):
            raise BadRequest(f'admission webhook "{hook.name}" does not support dry run')
        version = next(v for v in hook.tree["admissionReviewVersions"] if v in ("v1", "v1beta1"))
        request: Tree = {"uid": self.world.uid()} | await reviewed.request(kind)
        request |= {"object": await reviewed.new(kind), "oldObject": await reviewed.old(kind)}
        review = {"kind": "AdmissionReview", "apiVersion": f"admission.k8s.io/{version}", "request": request}
        began, labels = self.world.monotonic(), (self.sort, hook.name, attributes.operation)
        try:
            answer = await self.client.call(hook.tree["clientConfig"], review, float(hook.tree.get("timeoutSeconds") or 10))
            response = _response(answer, review, version)
        except WebhookError as error:
            self.metrics.observe(*labels, not hook.ignores, self.world.monotonic() - began)
            if hook.ignores:
                self.metrics.ignored(self.sort, hook.name)
                annotate(attributes, f"failed-open.{self.word}.webhook.admission.k8s.io/{at}", hook.name)
                return None
            self.metrics.rejected(*labels, CALLING, 0)
            text = f'failed calling webhook "{hook.name}": {error}'
            raise InternalError(f"Internal error occurred: {text}", {"causes": [{"message": text}]}) from None
        allowed = bool(response.get("allowed"))
        self.metrics.observe(*labels, not allowed, self.world.monotonic() - began)
        for key, value in (response.get("auditAnnotations") or {}).items():
            annotate(attributes, f"{hook.name}/{key}", str(value))
        for text in response.get("warnings") or ():
            attributes.context.warn(str(text))
        if not allowed:
            refusal = denial(hook.name, response.get("status") or response.get("result") or {})
            self.metrics.rejected(*labels, NO_ERROR, refusal.http_code)
            raise refusal
        return response


def _response(answer: Tree, review: Tree, version: str) -> Tree:
    """The response in an answer. Raises WebhookError."""
    api_version = f"admission.k8s.io/{version}"
    response = answer.get("response")
    if not isinstance(response, dict):
        raise WebhookError("failed to call webhook: the webhook response is absent")
    if version == "v1":
        if (answer.get("apiVersion"), answer.get("kind")) != (api_version, "AdmissionReview"):
            shown = f"{answer.get('apiVersion', '')}, Kind={answer.get('kind', '')}"
            raise WebhookError(f"received invalid webhook response: expected webhook response of {api_version}, "
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


def _operations(data: Any) -> list[Any]:
    """The JSON patch in a response; null is none. Raises WebhookError."""
    try:
        operations = decode_json(base64.b64decode(data, validate=True))
    except binascii.Error:
        raise WebhookError("illegal base64 data") from None
    except TypeError:
        raise WebhookError("json: cannot unmarshal the patch into Go value of type []uint8") from None
    except DecodeError as error:
        raise WebhookError(str(error)) from None
    if operations is None:
        return []
    if not isinstance(operations, list):
        raise WebhookError(f"json: cannot unmarshal {go_type(operations)} into Go value of type jsonpatch.Patch")
    return operations


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


@dataclass
class _Rounds:
    """The state that a request keeps of its first round: which webhooks are to be asked again."""

    willing: list[Hook] = field(default_factory=list)  # to be asked again (reinvocationPolicy)
    again: list[Hook] = field(default_factory=list)
    result: bytes = b""  # the object as the webhooks left it


class MutatingAdmissionWebhook(_Webhooks):
    """Once a webhook has changed the object, the whole chain runs again: the plugins of this server on what webhooks put
    in, and the webhooks that ask for it (reinvocationPolicy) on what came after them."""

    name = "MutatingAdmissionWebhook"
    resource = MUTATING
    word, sort = "mutation", "admit"

    async def admit(self, attributes: Attributes) -> None:
        rounds: _Rounds = attributes.memory.setdefault(self.name, _Rounds())
        second = attributes.round > 0
        if second and rounds.result and attributes.obj is not None and orjson.dumps(attributes.obj) != rounds.result:
            rounds.again += [h for h in rounds.willing if h not in rounds.again]
        reviewed = Reviewed(self.resources, attributes)
        candidates, others = self._candidates.get((attributes.operation, attributes.kind), ((), ()))
        for i, hook in candidates:
            if second and hook not in rounds.again:
                continue
            kind = await self._wants(hook, reviewed, others)
            if kind is None:
                continue
            if await self._call(hook, kind, reviewed, f"round_{attributes.round}_index_{i}"):
                rounds.again += [h for h in rounds.willing if h not in rounds.again]
                rounds.willing.clear()
                attributes.again = True
            if hook.tree.get("reinvocationPolicy") == "IfNeeded":
                rounds.willing.append(hook)
        if attributes.obj is not None and candidates:
            rounds.result = orjson.dumps(attributes.obj)

    async def _call(self, hook: Hook, kind: Kind, reviewed: Reviewed, at: str) -> bool:
        """Asks, and changes the object; returns whether it changed."""
        attributes = reviewed.attributes
        changed = False
        try:
            response = await self.ask(hook, kind, reviewed, at)
            if response is not None and response.get("patch"):
                changed = await self._patch(hook, kind, reviewed, response["patch"], at)
        finally:
            note = {"configuration": hook.configuration, "webhook": hook.name, "mutated": changed}
            annotate(attributes, _MUTATION + at, orjson.dumps(note).decode())
        return changed

    async def _patch(self, hook: Hook, kind: Kind, reviewed: Reviewed, data: str, at: str) -> bool:
        attributes = reviewed.attributes
        obj, shown = attributes.obj, await reviewed.new(kind)
        try:
            operations = _operations(data)
        except WebhookError as error:
            if hook.ignores:
                return False
            text = f'failed calling webhook "{hook.name}": received undecodable patch in webhook response: {error}'
            raise InternalError(f"Internal error occurred: {text}") from None
        if not operations:
            return False
        if obj is None or shown is None:
            raise InternalError(
                f'Internal error occurred: admission webhook "{hook.name}" attempted to modify the object, which is not '
                "supported for this operation"
            )
        before = orjson.dumps(obj)
        try:
            new = apply_json(orjson.loads(orjson.dumps(shown)), operations)
        except (ValueError, StatusError) as error:
            raise InternalError(f"Internal error occurred: {error}") from None
        resource = reviewed.resource(attributes.kind)
        if reviewed.scales and resource is not None:
            new = gate.reviewed(new, shown, SCALE_SCHEMA)
            try:
                new = scale.set_scale(orjson.loads(before), new, resource.strategy.scale_paths)
            except StatusError as error:
                raise InternalError(f"Internal error occurred: {error}") from None
        else:
            served = reviewed.resource(kind)
            if (shown.get("apiVersion"), shown.get("kind")) != (kind.api_version, kind.kind):
                served = resource = None  # the body of a subresource
            strict = served is None or served.strategy.strict_types
            new = gate.reviewed(new, shown, None if served is None else served.schema, strict=strict)
            if kind != attributes.kind:
                new = await reviewed.converted(new, kind, attributes.kind)
        if resource is not None:
            pruning.prepare(new, resource.schema)
            resource.strategy.default(new)
        obj.clear()
        obj.update(new)
        reviewed.changed()
        changed = orjson.dumps(obj) != before
        if changed:
            note = {"configuration": hook.configuration, "webhook": hook.name, "patch": operations, "patchType": "JSONPatch"}
            annotate(attributes, _PATCH + at, orjson.dumps(note).decode())
        return changed


class ValidatingAdmissionWebhook(_Webhooks):
    name = "ValidatingAdmissionWebhook"
    resource = VALIDATING
    word = sort = "validating"

    async def validate(self, attributes: Attributes) -> None:
        reviewed = Reviewed(self.resources, attributes)
        to_ask = await self.to_ask(reviewed)
        if len(to_ask) == 1:
            i, hook, kind = to_ask[0]
            await self.ask(hook, kind, reviewed, f"round_0_index_{i}")
            return
        errors: dict[int, StatusError] = {}

        async def one(i: int, hook: Hook, kind: Kind) -> None:
            try:
                await self.ask(hook, kind, reviewed, f"round_0_index_{i}")
            except StatusError as error:
                errors[i] = error

        async with self.world.task_group() as group:
            for i, hook, kind in to_ask:
                group.start(one(i, hook, kind), f"webhook {hook.name}")
        if errors:
            raise errors[min(errors)]
