"""``navarch auth``: who am I, and what may I do?"""

from __future__ import annotations

import json
from typing import Annotated, Any, NamedTuple

from cli.errors import CommandError, warn
from cli.options import App, Argument, Option
from cli.output import printing
from cli.output.tables import Columns
from cli.session import Session, Tree
from cli.verb import AllNamespaces, Where, verb
from navarch.client.transport import JSON

app = App()
group = App(help="Who am I, and what may I do?")
app.add_group(group, "auth")

VERBS = {
    *(
        "get",
        "list",
        "watch",
        "create",
        "update",
        "patch",
        "delete",
        "deletecollection",
        "use",
        "bind",
        "impersonate",
        "*",
    ),
    *("approve", "sign", "escalate", "attest"),
}
USAGE = """you must specify two arguments: verb resource or verb resource/resourceName.
See 'navarch auth can-i -h' for help and examples."""


class Rule(NamedTuple):
    """The actions allowed on one resource, or at one URL."""

    verbs: list[str]
    group: str
    resource: str
    names: tuple[str, ...]
    url: str

    def key(self) -> str:
        """kubectl's order is that of Go's text of a rule: by verbs first."""
        groups, resources = (f"[{each}]" if self.resource else "[]" for each in (self.group, self.resource))
        return f"[{' '.join(self.verbs)}],{groups},{resources},[{' '.join(self.names)}],[{self.url}]"


async def _review(session: Session, kind: str, group_: str, spec: Tree | None = None) -> Tree:
    """The server's answer to a review."""
    path = f"/apis/{group_}/v1/{kind.lower()}s"
    body = json.dumps({"apiVersion": f"{group_}/v1", "kind": kind} | ({"spec": spec} if spec else {})).encode()
    response = await session.client.request("POST", path, body=body, content_type=JSON)
    review: Tree = json.loads(response.body)
    return review


@verb(group, "can-i")
def can_i(
    where: Where,
    words: Annotated[list[str] | None, Argument("VERB TYPE[/NAME] | VERB /URL")] = None,
    list_: Annotated[bool, Option("--list", help="Everything that is allowed.")] = False,
    subresource: Annotated[str, Option("--subresource", metavar="NAME", help="Of the type: log, scale ...")] = "",
    quiet: Annotated[bool, Option("-q", "--quiet", help="Only the exit code.")] = False,
    all_namespaces: AllNamespaces = False,
    no_headers: Annotated[bool, Option("--no-headers", help="Without the line of column names.")] = False,
) -> None:
    """May I? navarch auth can-i delete pods; auth can-i --list. Exit code 1: no."""

    async def main(session: Session) -> int:
        arguments = words or []
        if list_:
            if arguments:
                raise CommandError("list option must be specified with no arguments")
            await _list(session, not no_headers)
            return 0
        if len(arguments) not in (2, 3):
            raise CommandError(USAGE)
        spec = await _attributes(session, arguments, subresource, "" if all_namespaces else session.namespace)
        status = (await _review(session, "SelfSubjectAccessReview", "authorization.k8s.io", spec)).get("status") or {}
        allowed = bool(status.get("allowed"))
        if not quiet:
            text = "yes" if allowed else "no"
            reason, error = status.get("reason"), status.get("evaluationError")
            text += f" - {reason}" if reason and not allowed else ""
            print(text + (f" - {error}" if error else ""))
        return 0 if allowed else 1

    where.run(main)


async def _attributes(session: Session, words: list[str], subresource: str, namespace: str) -> Tree:
    """The spec of a SelfSubjectAccessReview."""
    verb_, what = words[0], words[1]
    if what.startswith("/"):
        if subresource:
            raise CommandError("--subresource can not be used with NonResourceURL")
        return {"nonResourceAttributes": {"path": what, "verb": verb_}}
    if verb_ not in VERBS:
        warn(f"verb '{verb_}' is not a known verb\n")
    word, _, name = what.partition("/")
    resource, group_, version = word, "", ""
    if word != "*":
        try:
            resource_ = await session.resource(word)
            resource, group_ = resource_.kind.resource, resource_.kind.group
            if not resource_.kind.namespaced and namespace:
                warn(
                    f"resource '{resource}' is not namespace scoped"
                    + (f" in group '{group_}'" if group_ else "")
                    + "\n"
                )
                namespace = ""
        except CommandError:
            name_, _, group_ = word.partition(".")
            resource = name_
            warn(
                f"the server doesn't have a resource type '{name_}'"
                + (f" in group '{group_}'" if group_ else "")
                + "\n"
            )
    attributes: dict[str, Any] = {"namespace": namespace, "verb": verb_, "group": group_, "resource": resource}
    attributes |= {"subresource": subresource, "name": name or (words[2] if len(words) > 2 else ""), "version": version}
    return {"resourceAttributes": {k: v for k, v in attributes.items() if v}}


async def _list(session: Session, headers: bool) -> None:
    answer = await _review(session, "SelfSubjectRulesReview", "authorization.k8s.io", {"namespace": session.namespace})
    status = answer.get("status") or {}
    if status.get("incomplete"):
        warn(f"the list may be incomplete: {status.get('evaluationError', '')}")
    rows = [["Resources", "Non-Resource URLs", "Resource Names", "Verbs"]] if headers else []
    # One line for the same resource and names, with all its verbs, as kubectl compacts them.
    merged: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    for rule in status.get("resourceRules") or ():
        for api_group in rule.get("apiGroups") or [""]:
            for resource in rule.get("resources") or ():
                have = merged.setdefault((api_group, resource, tuple(rule.get("resourceNames") or ())), [])
                have += [v for v in rule.get("verbs") or () if v not in have]
    rules = [Rule(verbs, *key, "") for key, verbs in merged.items()]
    rules += [
        Rule(rule.get("verbs") or [], "", "", (), url)
        for rule in status.get("nonResourceRules") or ()
        for url in rule.get("nonResourceURLs") or ()
    ]
    for rule in sorted(rules, key=Rule.key):
        typed = f"{rule.resource}.{rule.group}" if rule.group else rule.resource
        cells = ((rule.url,) if rule.url else (), rule.names, rule.verbs)
        rows.append([typed, *(f"[{' '.join(cell)}]" for cell in cells)])
    print("\n".join(Columns().lines(rows)))


@verb(group)
def whoami(
    where: Where,
    output: Annotated[str, Option("-o", "--output", metavar="json|yaml", help="json or yaml.")] = "",
) -> None:
    """Shows who the server takes me for."""

    async def main(session: Session) -> None:
        printing.check_format(output)
        review = await _review(session, "SelfSubjectReview", "authentication.k8s.io")
        review.pop("spec", None)
        if output:
            printing.emit(printing.rendered(review, output, [""]), output)
            return
        user = (review.get("status") or {}).get("userInfo") or {}
        rows = [["ATTRIBUTE", "VALUE"], ["Username", user.get("username", "")]]
        if user.get("uid"):
            rows.append(["UID", user["uid"]])
        if user.get("groups"):
            rows.append(["Groups", f"[{' '.join(user['groups'])}]"])
        for key, values in sorted((user.get("extra") or {}).items()):
            rows.append([f"Extra: {key}", f"[{' '.join(values)}]"])
        print("\n".join(Columns().lines(rows)))

    where.run(main)
