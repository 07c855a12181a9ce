"""PodSecurity: pods keep to the standard that their namespace's labels name.

A namespace that asks for nothing costs its pods one look at its labels.
"""

from __future__ import annotations

from typing import Any

from apiserver.admission.audit import annotate
from apiserver.admission.chain import BasePlugin
from apiserver.admission.podsecurity.checks import Objections, check
from apiserver.admission.podsecurity.configuration import Configuration
from apiserver.admission.podsecurity.levels import PREFIX, PRIVILEGED, Policy, Standard, policy_of, stricter
from apiserver.cache.cache import Cache
from apiserver.cache.objects import Entry
from apiserver.request import CREATE, UPDATE, Attributes
from navarch.api import wellknown
from navarch.api.errors import Cause, InternalError, resource_forbidden, resource_invalid
from navarch.api.kinds import Kind
from navarch.world import World

Tree = dict[str, Any]
NAMESPACES, PODS = "/registry/namespaces/", "/registry/pods/"
MAX_PODS, PATIENCE = 3000, 1.0
"""How many existing pods are looked at when a namespace becomes stricter, and for how many seconds."""
EVERYTHING_ALLOWED = Configuration()
MAX_KNOWN = 10_000  # namespaces whose policies are remembered
BREATH = 50  # pods between two looks at what else the server has to do
TEMPLATES = {
    ("", "podtemplates"): ("template",),
    ("", "replicationcontrollers"): ("spec", "template"),
    ("apps", "replicasets"): ("spec", "template"),
    ("apps", "deployments"): ("spec", "template"),
    ("apps", "statefulsets"): ("spec", "template"),
    ("apps", "daemonsets"): ("spec", "template"),
    ("batch", "jobs"): ("spec", "template"),
    ("batch", "cronjobs"): ("spec", "jobTemplate", "spec", "template"),
}
IGNORED = ("exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status")
_SECCOMP = wellknown.SECCOMP_POD
_SECCOMP_CONTAINER = "container.seccomp.security.alpha.kubernetes.io/"


class PodSecurity(BasePlugin):
    name = "PodSecurity"

    def __init__(self, world: World, cache: Cache, configuration: Configuration = EVERYTHING_ALLOWED) -> None:
        self.world, self.cache, self.configuration = world, cache, configuration
        self._policies: dict[str, tuple[Entry, Policy, list[Cause]]] = {}  # of namespaces, as long as they stay the same

    def handles(self, operation: str, kind: Kind) -> bool:
        at = kind.group, kind.resource
        return operation in (CREATE, UPDATE) and (at in (("", "pods"), ("", "namespaces")) or at in TEMPLATES)

    async def validate(self, attributes: Attributes) -> None:
        kind = attributes.kind
        if kind.resource == "namespaces":
            await self._namespace(attributes)
        elif kind.resource == "pods" and not kind.group:
            if attributes.subresource not in IGNORED:
                await self._pod(attributes)
        elif not attributes.subresource:
            await self._template(attributes)

    # Pods, and what makes pods

    async def _policy_for(self, attributes: Attributes, template: bool) -> Policy | None:
        """The policy that the namespace has for the object; None if it has none."""
        entry = self.cache.get(NAMESPACES, None, attributes.namespace)
        if entry is None:
            await self.cache.current()
            entry = self.cache.get(NAMESPACES, None, attributes.namespace)
        if entry is None:
            raise InternalError(f"failed to lookup namespace {attributes.namespace}")
        cached = self._policies.get(attributes.namespace)
        if cached is None or cached[0] is not entry:
            if len(self._policies) >= MAX_KNOWN:
                self._policies.clear()
            cached = self._policies[attributes.namespace] = entry, *policy_of(entry.labels, self.configuration.default)
        _, policy, causes = cached
        parts = policy[1:] if template else policy
        if not causes and all(one.level == PRIVILEGED for one in parts):
            return None
        configuration = self.configuration
        if attributes.namespace in configuration.namespaces:
            annotate(attributes, f"{PREFIX}exempt", "namespace")
            return None
        if attributes.context.user.name in configuration.usernames:
            annotate(attributes, f"{PREFIX}exempt", "user")
            return None
        if causes:
            text = ", ".join(c.text() for c in causes)
            annotate(attributes, f"{PREFIX}error", f"Failed to parse policy: {text}")
        return policy

    async def _pod(self, attributes: Attributes) -> None:
        policy = await self._policy_for(attributes, template=False)
        obj, old = attributes.obj, attributes.old
        if policy is None or obj is None or (old is not None and not _significant(obj, old)):
            return
        self._evaluate(attributes, policy, obj.get("metadata") or {}, obj.get("spec") or {}, enforce=True)

    async def _template(self, attributes: Attributes) -> None:
        policy = await self._policy_for(attributes, template=True)
        template: Any = attributes.obj
        for step in TEMPLATES[attributes.kind.group, attributes.kind.resource] if policy is not None else ():
            template = (template or {}).get(step)
        if policy is not None and template:
            metadata, spec = template.get("metadata") or {}, template.get("spec") or {}
            self._evaluate(attributes, policy, metadata, spec, enforce=False)

    def _evaluate(self, attributes: Attributes, policy: Policy, metadata: Tree, spec: Tree, enforce: bool) -> None:
        if spec.get("runtimeClassName") in self.configuration.runtime_classes:
            annotate(attributes, f"{PREFIX}exempt", "runtimeClass")
            return
        by_standard: dict[Standard, Objections] = {}

        def objections(standard: Standard) -> Objections:
            if standard not in by_standard:
                by_standard[standard] = check(standard, metadata, spec)
            return by_standard[standard]

        refused = ""
        if enforce:
            annotate(attributes, f"{PREFIX}enforce-policy", str(policy.enforce))
            if objection := objections(policy.enforce):
                refused = f'violates PodSecurity "{policy.enforce}": {objection.details}'
        if objection := objections(policy.audit):
            text = f'would violate PodSecurity "{policy.audit}": {objection.details}'
            annotate(attributes, f"{PREFIX}audit-violations", text)
        if refused:
            raise resource_forbidden(attributes.kind.resource, attributes.kind.group, attributes.name, refused)
        if objection := objections(policy.warn):
            attributes.context.warn(f'would violate PodSecurity "{policy.warn}": {objection.details}')

    # Namespaces

    async def _namespace(self, attributes: Attributes) -> None:
        obj, old, name = attributes.obj, attributes.old, attributes.name
        if attributes.subresource or obj is None:
            return
        labels = (obj.get("metadata") or {}).get("labels") or {}
        policy, causes = policy_of(labels, self.configuration.default)
        exempt = name in self.configuration.namespaces
        if old is None:
            if causes:
                raise resource_invalid("Namespace", "", name, causes)
            if exempt:
                self._warn_exempt(attributes, policy, labels)
            return
        before, old_causes = policy_of((old["metadata"].get("labels")) or {}, self.configuration.default)
        if causes and causes != old_causes:
            raise resource_invalid("Namespace", "", name, causes)
        if policy != before and exempt:
            self._warn_exempt(attributes, policy, labels)
            return
        new, was = policy.enforce, before.enforce
        if exempt or new == was or (new.minor == was.minor and not stricter(new.level, was.level)):
            return
        if new.level != PRIVILEGED:
            for text in await self._existing(name, new):
                attributes.context.warn(text)

    def _warn_exempt(self, attributes: Attributes, policy: Policy, labels: Tree) -> None:
        if any(label.startswith(PREFIX) for label in labels) and str(policy):
            attributes.context.warn(
                f'namespace "{attributes.name}" is exempt from Pod Security, and the policy ({policy}) will be ignored'
            )

    async def _existing(self, namespace: str, standard: Standard) -> list[str]:
        """Warnings about the pods that are there already."""
        await self.cache.current()
        pods = self.cache.list(PODS, namespace).entries
        deadline = self.world.monotonic() + PATIENCE
        pods_by_reason: dict[str, list[str]] = {}  # names by what is wrong with them
        looked = 0
        for entry in pods[:MAX_PODS]:
            tree = entry.tree()
            looked += 1
            spec = tree.get("spec") or {}
            if spec.get("runtimeClassName") in self.configuration.runtime_classes:
                continue
            if objections := check(standard, tree["metadata"], spec):
                pods_by_reason.setdefault(objections.reasons, []).append(entry.name)
            if looked % BREATH == 0:
                await self.world.sleep(0)
                if self.world.monotonic() > deadline:
                    break
        out = []
        if looked < len(pods):
            out.append(
                f"new PodSecurity enforce level only checked against the first {looked} of {len(pods)} existing pods"
            )
        if pods_by_reason:
            out.append(f'existing pods in namespace "{namespace}" violate the new PodSecurity enforce level "{standard}"')
        return out + sorted(f"{_counted(names)}: {reasons}" for reasons, names in pods_by_reason.items())


def _counted(names: list[str]) -> str:
    others = len(names) - 1
    if not others:
        return names[0]
    return f"{min(names)} (and {others} other pod{'s' if others > 1 else ''})"


def _significant(obj: Tree, old: Tree) -> bool:
    """Whether a change of a pod could matter to a check."""
    new_notes, old_notes = ((t.get("metadata") or {}).get("annotations") or {} for t in (obj, old))

    def noted(key: str) -> bool:
        return new_notes.get(key) != old_notes.get(key)

    if noted(_SECCOMP):
        return True
    new_spec, old_spec = obj.get("spec") or {}, old.get("spec") or {}
    for field in ("containers", "initContainers", "ephemeralContainers"):
        new, was = new_spec.get(field) or (), {c.get("name"): c for c in old_spec.get(field) or ()}
        if field != "ephemeralContainers" and len(new) != len(was):
            return True
        for container in new:
            name = container.get("name")
            if name not in was or container.get("image") != was[name].get("image") or noted(f"{_SECCOMP_CONTAINER}{name}"):
                return True
    return False
