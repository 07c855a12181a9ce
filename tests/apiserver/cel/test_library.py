"""Kubernetes' CEL functions, as expressions see them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiserver.cel import semver
from apiserver.cel.authorizer import authorizer, deciding, request_resource
from apiserver.cel.engine import CelError, Unset, activation, compile_cel
from apiserver.request import RequestInfo, User

DECLARED = (
    ("object", "dyn"), ("authorizer", "map(string)"), ("authorizer.requestResource", "map(string)"), ("variables.x", "dyn"),
)  # fmt: skip


def value(source: str, **variables: Any) -> Any:
    return compile_cel(source, DECLARED).evaluate(variables)


@pytest.mark.parametrize(
    "source",
    [
        "[1, 2, 2].isSorted() && [1, 2].sum() == 3 && [3, 1].min() == 1 && [3, 1].max() == 3",
        "[1, 2, 1].indexOf(1) == 0 && [1, 2, 1].lastIndexOf(1) == 2 && [1].indexOf(9) == -1",
        "'abc 123'.find('[0-9]+') == '123' && '1a2b'.findAll('[0-9]') == ['1', '2'] && '1a2b'.findAll('[0-9]', 1) == ['1']",
        "url('https://user@h.example:8080/a%20b?x=1&x=2').getHost() == 'h.example:8080'",
        "url('https://h:8080/a%20b?x=1&x=2').getQuery()['x'] == ['1', '2'] && url('https://h:80/').getPort() == '80'",
        "isURL('https://h/x') && !isURL('h x') && url('https://[::1]:80/a').getHostname() == '::1'",
        "isIP('10.0.0.1') && !isIP('10.0.0.256') && !isIP('::ffff:1.2.3.4') && ip('::1').family() == 6",
        "ip('10.0.0.1').isGlobalUnicast() && ip('127.0.0.1').isLoopback() && ip('224.0.0.1').isLinkLocalMulticast()",
        "ip.isCanonical('2001:db8::abcd') && !ip.isCanonical('2001:DB8::ABCD') && string(ip('10.0.0.1')) == '10.0.0.1'",
        "cidr('10.0.0.0/8').containsIP('10.1.1.1') && cidr('10.0.0.0/8').containsIP(ip('10.1.1.1'))",
        "cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && !cidr('10.0.0.0/8').containsCIDR(cidr('11.0.0.0/16'))",
        "cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8') && cidr('10.0.0.0/8').prefixLength() == 8",
        "cidr('10.1.2.3/8').ip() == ip('10.1.2.3') && isCIDR('::/0') && !isCIDR('10.0.0.0')",
        "quantity('1Gi').isGreaterThan(quantity('1G')) && quantity('50k').add(20).compareTo(quantity('50020')) == 0",
        "quantity('1.5').isInteger() == false && quantity('2k').asInteger() == 2000 && quantity('-1').sign() == -1",
        "isQuantity('1Mi') && !isQuantity('1mi') && quantity('10').sub(quantity('3')).asInteger() == 7",
        "semver('1.2.3').isLessThan(semver('1.10.0')) && semver('1.0.0-rc.1').isLessThan(semver('1.0.0'))",
        "isSemver('1.0.0') && !isSemver('v1.0') && isSemver('v1.0', true) && semver('v01.2', true).major() == 1",
        "semver('1.2.3').minor() == 2 && semver('1.2.3').patch() == 3 && semver('1.0.0+a').compareTo(semver('1.0.0+b')) == 0",
        "format.dns1123Label().validate('My_name') != null && format.uuid().validate('x').value()[0].contains('UUID')",
        "format.named('uri').validate('x').hasValue() && format.byte().validate('a?').value()[0] != ''",
        "!(format.dns1123Label().validate('x') == null) && format.labelValue().validate('-').value().size() == 1",
        "!format.dns1123Label().validate('my-name').hasValue() && format.dns1123Label().validate('My_name').hasValue()",
        "format.named('uuid').hasValue() && !format.named('nope').hasValue()",
        "format.date().validate('2024-02-30').hasValue() && !format.datetime().validate('2024-02-03T01:02:03Z').hasValue()",
        "sets.contains([1, 2], [1]) && sets.equivalent([1, 1], [1]) && sets.intersects([1], [1, 2])",
        "{'a': 1}.all(k, v, k == 'a' && v == 1) && [1, 2].transformList(i, v, i + v) == [1, 3]",
        "object.?missing.orValue('x') == 'x' && optional.of(1).hasValue()",
        "'%s-%d'.format(['a', 1]) == 'a-1' && 'a,b'.split(',') == ['a', 'b'] && ' a '.trim() == 'a'",
        "1 < 1.5 && 2.0 >= 1",  # numbers of two kinds
    ],
)  # fmt: skip
def test_holds(source: str) -> None:
    assert value(source, object={}) is True


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("quantity('x')", "unable to parse|quantities must match"),
        ("quantity('1.5').asInteger()", "cannot convert"),
        ("semver('1')", "no semantic version"),
        ("ip('1.2.3.4%eth0')", "zone"),
        ("object.a.b", "no such key: a"),
        ("[1][3] == 1", "index out of bounds"),
        ("1 / (object.size() - object.size()) == 0", "division by zero"),
    ],
)
def test_fails(source: str, expected: str) -> None:
    with pytest.raises(CelError) as error:
        value(source, object={})
    assert any(part in str(error.value) for part in expected.split("|")), str(error.value)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "params.x == 1",
            "ERROR: <input>:1:1: undeclared reference to 'params' (in container '')\n | params.x == 1\n | ^",
        ),
        ("1 == variables.y", "ERROR: <input>:1:15: undefined field 'y'\n | 1 == variables.y\n | ..............^"),
        ("1 + 'a'", "found no matching overload for '_+_' applied to '(int, string)'"),
        ("1 +", "Syntax error"),
    ],
)
def test_does_not_compile(source: str, expected: str) -> None:
    with pytest.raises(CelError) as error:
        compile_cel(source, DECLARED)
    assert expected in str(error.value)


def test_rights() -> None:
    asked: list[tuple[str, RequestInfo]] = []

    def decide(user: User, info: RequestInfo) -> tuple[bool, str]:
        asked.append((user.name, info))
        return info.verb == "get", "because"

    eve = User("eve", ("g",))
    info = RequestInfo("", "", True, "apps", "v1", "deployments", "", "n", "d")
    variables = {"authorizer": authorizer(eve), "authorizer.requestResource": request_resource(eve, info)}
    with deciding(decide):
        assert value("authorizer.path('/healthz').check('GET').allowed()", **variables) is True
        source = "authorizer.group('apps').resource('deployments').subresource('scale').namespace('n').name('d').check('get')"
        assert value(f"{source}.reason()", **variables) == "because"
        assert value("authorizer.requestResource.check('delete').allowed()", **variables) is False
        assert (
            value(
                "authorizer.serviceAccount('ns', 'sa').group('').resource('pods').check('get').errored()", **variables
            )
            is False
        )
    assert asked[0][1] == RequestInfo("get", "/healthz")
    assert asked[1][1] == RequestInfo("get", "", True, "apps", "*", "deployments", "scale", "n", "d")
    assert asked[2][1] == RequestInfo("delete", "", True, "apps", "*", "deployments", "", "n", "d")
    assert asked[3][0] == "system:serviceaccount:ns:sa"
    assert value("authorizer.path('/x').check('get').errored()", **variables) is True  # nobody is there to decide


def test_variables_are_asked_for_only_when_needed() -> None:
    given = activation(DECLARED, {"object": {}})
    assert compile_cel("true || variables.x == 1", DECLARED).within(given) is True
    with pytest.raises(Unset) as unset:
        compile_cel("variables.x == 1", DECLARED).within(given)
    assert unset.value.args == ("variables.x",)


def test_loops_are_bounded() -> None:
    many = {"a": list(range(300))}
    with pytest.raises(CelError, match="cost limit exceeded"):
        value("object.a.all(x, object.a.all(y, x + y >= 0))", object=many)


RELEASE = st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20))
BEFORE = st.lists(
    st.one_of(st.integers(0, 30).map(str), st.from_regex("[a-z][a-z0-9-]{0,4}", fullmatch=True)), max_size=3
)


@given(RELEASE, BEFORE, RELEASE, BEFORE)
def test_versions_are_ordered(a: Any, pre_a: list[str], b: Any, pre_b: list[str]) -> None:
    def version(numbers: Any, words: list[str]) -> dict[str, str]:
        return semver.semver(".".join(map(str, numbers)) + ("-" + ".".join(words) if words else ""))

    first, second = version(a, pre_a), version(b, pre_b)
    if a != b:
        assert (semver.order(first) < semver.order(second)) == (a < b)
    elif bool(pre_a) != bool(pre_b):
        assert (semver.order(first) < semver.order(second)) == bool(pre_a)
    assert semver.order(first) == semver.order(semver.semver(first["semver"] + "+build"))
    assert semver.semver("v" + first["semver"], True) == first
