"""Kubernetes' additions to CEL, declared. The functions themselves are in the modules by their subject.

What Kubernetes has as types of their own (quantities, addresses, URLs, checks of rights) are maps of texts here: a member
function finds out by the keys what it has before it.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable
from typing import Any

from apiserver.cel import authorizer, formats, lists, network, quantities, semver


@functools.cache
def functions() -> list[Any]:
    """The declarations, for the engine."""
    from cel_expr_python import cel

    T = cel.Type
    items, texts, opaque = T.List(T.DYN), T.List(T.STRING), T.Map(T.STRING, T.STRING)
    overloads_by_name: dict[str, list[Any]] = {}

    def add(name: str, returns: Any, takes: list[Any], impl: Callable[..., Any], member: bool = True) -> None:
        overloads = overloads_by_name.setdefault(name, [])
        number = f"k8s_{name}_{len(overloads)}"
        overloads.append(cel.Overload(number, returns, takes, is_member=member, impl=impl))

    add("isSorted", T.BOOL, [items], lists.is_sorted)
    add("sum", T.DYN, [items], lists.total)
    add("min", T.DYN, [items], min)
    add("max", T.DYN, [items], max)
    add("indexOf", T.INT, [items, T.DYN], lists.index)
    add("lastIndexOf", T.INT, [items, T.DYN], lists.last_index)
    add("find", T.STRING, [T.STRING, T.STRING], lists.find)
    add("findAll", texts, [T.STRING, T.STRING], lists.find_all)
    add("findAll", texts, [T.STRING, T.STRING, T.INT], lists.find_all)
    for name, read in (
        ("URL", network.url), ("IP", network.ip), ("CIDR", network.cidr), ("Quantity", quantities.quantity_of),
        ("Semver", semver.semver),
    ):  # fmt: skip
        add(f"is{name}", T.BOOL, [T.STRING], works(read), False)
        add(name.lower(), opaque, [T.STRING], read, False)
    add("isSemver", T.BOOL, [T.STRING, T.BOOL], works(semver.semver), False)
    add("semver", opaque, [T.STRING, T.BOOL], semver.semver, False)
    add("string", T.STRING, [opaque], lambda v: next(iter(v.values())), False)
    for name, part in network.URL_PARTS.items():
        add(name, T.STRING, [opaque], part)
    add("getQuery", T.Map(T.STRING, texts), [opaque], network.query)
    add("family", T.INT, [opaque], lambda v: ipaddress.ip_address(v["ip"]).version)
    add("ip.isCanonical", T.BOOL, [T.STRING], network.is_canonical, False)
    for name, test in network.ADDRESS_TESTS.items():
        add(name, T.BOOL, [opaque], lambda v, test=test: test(ipaddress.ip_address(v["ip"])))
    add("containsIP", T.BOOL, [opaque, T.DYN], network.within)
    add("containsCIDR", T.BOOL, [opaque, T.DYN], network.within)
    add("ip", opaque, [opaque], lambda v: {"ip": v["cidr"].partition("/")[0]})
    add("prefixLength", T.INT, [opaque], lambda v: int(v["cidr"].partition("/")[2]))
    add("masked", opaque, [opaque], lambda v: {"cidr": str(ipaddress.ip_network(v["cidr"], strict=False))})
    add("isGreaterThan", T.BOOL, [opaque, opaque], lambda a, b: _ordered(a) > _ordered(b))
    add("isLessThan", T.BOOL, [opaque, opaque], lambda a, b: _ordered(a) < _ordered(b))
    add("compareTo", T.INT, [opaque, opaque], lambda a, b: (_ordered(a) > _ordered(b)) - (_ordered(a) < _ordered(b)))
    for name, amount in quantities.PARTS.items():
        add(name, {"asApproximateFloat": T.DOUBLE, "isInteger": T.BOOL}.get(name, T.INT), [opaque], amount)
    for other in (opaque, T.INT):
        add("add", opaque, [opaque, other], quantities.add)
        add("sub", opaque, [opaque, other], quantities.sub)
    for i, name in enumerate(("major", "minor", "patch")):
        add(name, T.INT, [opaque], lambda v, i=i: semver.numbers(v)[i])
    for name in formats.CHECKS:
        add(f"format.{name}", opaque, [], lambda name=name: {"format": name}, False)
    add("format.named", opaque, [T.STRING], formats.named, False)
    add("validate", T.DYN, [opaque, T.STRING], formats.validate)  # an optional upstream, which may be compared with null
    for kind in (opaque, texts):  # what is optional upstream: empty means absent
        add("hasValue", T.BOOL, [kind], bool)
        add("value", kind, [kind], lambda v: v)
    for name, step in authorizer.STEPS.items():
        add(name, opaque, [opaque, T.STRING], step)
    add("serviceAccount", opaque, [opaque, T.STRING, T.STRING], authorizer.service_account)
    add("check", opaque, [opaque, T.STRING], authorizer.check)
    for name in ("allowed", "errored"):
        add(name, T.BOOL, [opaque], lambda v, name=name: v[name] == "true")
    for name in ("error", "reason"):
        add(name, T.STRING, [opaque], lambda v, name=name: v[name])
    return [cel.FunctionDecl(name, overloads) for name, overloads in overloads_by_name.items()]


def works(read: Callable[..., Any]) -> Callable[..., bool]:
    """Whether a text can be read."""

    def check(*arguments: Any) -> bool:
        try:
            read(*arguments)
        except ValueError:
            return False
        return True

    return check


def _ordered(value: Any) -> Any:
    """The key by which a quantity or a version is compared."""
    return semver.order(value) if "semver" in value else quantities.amount(value)
