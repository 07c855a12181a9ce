"""Rules in CEL."""

from __future__ import annotations

from typing import Any

import pytest

from apiserver.crd.rules import check_rules, compile_rules
from apiserver.crd.values import ABSENT
from tests.apiserver.crd.support import MERGE, PATH, Caller, crontab, simple

Tree = dict[str, Any]
FIELDS: Tree = {
    "min": {"type": "integer"},
    "max": {"type": "integer"},
    "name": {"type": "string"},
    "my-name": {"type": "string"},
    "for": {"type": "string"},
    "time": {"type": "string", "format": "date-time"},
    "wait": {"type": "string", "format": "duration"},
    "ratio": {"type": "number"},
    "blob": {"type": "string", "format": "byte"},
    "either": {"x-kubernetes-int-or-string": True},
    "list": {"type": "array", "items": {"type": "integer"}, "maxItems": 100},
    "maybe": {"type": "integer", "nullable": True},
    "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"n": {"type": "integer"}}}},
}
VALUE: Tree = {
    "min": 1,
    "max": 2,
    "name": "abc-200",
    "my-name": "m",
    "for": "f",
    "time": "2024-01-02T00:00:00Z",
    "wait": "1h30m",
    "ratio": 2,
    "blob": "YWI=",
    "either": "a",
    "list": [1, 2, 3],
    "maybe": None,
    "map": {"a": {"n": 1}, "b": {"n": 2}},
}


def schema(rule: str, **more: Any) -> Tree:
    return {"type": "object", "properties": FIELDS, "x-kubernetes-validations": [{"rule": rule} | more]}


def run(schema: Tree, value: Any, old: Any = ABSENT) -> list[str]:
    assert [c.text() for c in check_rules(schema, "s")] == []
    rules, out = compile_rules(schema), []  # type: ignore[var-annotated]
    assert rules is not None
    rules.run(value, "spec", out, old)
    return [c.text() for c in out]


@pytest.mark.parametrize(
    "rule",
    [
        "self.min <= self.max",
        "self.name.startsWith('abc')",
        "self.name.matches('^[a-z]+-[0-9]+$')",
        "self.my__dash__name == 'm' && self.__for__ == 'f'",
        "self.time > timestamp('2024-01-01T00:00:00Z')",
        "self.wait == duration('90m')",
        "self.ratio == 2.0",
        "self.ratio + 1.0 == 3.0",
        "self.blob == b'ab'",
        "type(self.either) == string || type(self.either) == int",
        "self.list.all(x, x > 0) && self.list.exists_one(x, x == 2)",
        "self.list.map(x, x * 2) == [2, 4, 6] && self.list.filter(x, x > 2) == [3]",
        "size(self.list) == 3 && 2 in self.list",
        "self.map.all(k, self.map[k].n > 0) && 'a' in self.map",
        "!has(self.maybe) && has(self.min)",
        "self.list.isSorted() && self.list.sum() == 6 && self.list.max() == 3 && self.list.min() == 1",
        "self.list.indexOf(2) == 1 && self.list.lastIndexOf(9) == -1",
        "self.name.find('[0-9]+') == '200'",
        "self.name.findAll('[0-9]') == ['2', '0', '0']",
        "self.name.split('-')[1].replace('2', '3') == '300'",
        "['a', 'b'].join(',') == 'a,b' && self.name.substring(0, 3).upperAscii() == 'ABC'",
        "'%s-%d'.format(['a', 1]) == 'a-1'",
        "quantity('1Gi').isGreaterThan(quantity('100M')) && isQuantity('1') && !isQuantity('x')",
        "quantity('1').add(quantity('500m')).compareTo(quantity('1500m')) == 0 && quantity('2').asInteger() == 2",
        "url('https://u@h:80/p?q=1').getHost() == 'h:80' && isURL('https://a/') && !isURL('a b')",
        "isIP('::1') && ip('10.0.0.1').family() == 4 && cidr('10.0.0.0/8').containsIP('10.1.1.1')",
        "cidr('10.0.0.0/8').containsCIDR(cidr('10.1.0.0/16')) && cidr('10.0.0.0/8').prefixLength() == 8",
        "self.?min.orValue(3) == 1 && self.?min.hasValue()",
        "math.greatest(1, 2) == 2",
        "self == self && self.list == [1, 2, 3]",
    ],
)
def test_language(rule: str) -> None:
    assert run(schema(rule), VALUE) == []


def test_words() -> None:
    assert run(schema("self.min > 5"), VALUE) == ["spec: Invalid value: failed rule: self.min > 5"]
    assert run(schema("self.min > 5", message="too small"), VALUE) == ["spec: Invalid value: too small"]
    text = {"messageExpression": "'min is ' + string(self.min)", "message": "else"}
    assert run(schema("self.min > 5", **text), VALUE) == ["spec: Invalid value: min is 1"]
    text["messageExpression"] = "string(self.nope)"
    assert run(schema("self.min > 5", **text), VALUE) == ["spec: Invalid value: else"]
    where = {"reason": "FieldValueForbidden", "fieldPath": ".min", "message": "no"}
    assert run(schema("self.min > 5", **where), VALUE) == ["spec.min: Forbidden: no"]
    where["reason"] = "FieldValueRequired"
    assert run(schema("self.min > 5", **where), VALUE) == ["spec.min: Required value: no"]
    assert run(schema("self.min > 5"), {}) == ["spec: Invalid value: no such key: min evaluating rule: self.min > 5"]
    deep = {
        "type": "object",
        "properties": {"n": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 1"}]}},
    }
    assert run(deep, {"n": 1}) == ["spec.n: Invalid value: 1: failed rule: self > 1"]


def test_fields_that_are_not_known_for_sure() -> None:
    open_schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    whole = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"any": open_schema}}}}
    for rule in (
        "self.metadata.name == 'a' && self.kind == 'x'",
        "self.spec.any.thing == 1",
        "size(self.spec) > 0 || 'self.nope' == ''",
        "self.spec.any.size() > 0",
        "[1].all(self_x, self_x > 0)",
    ):
        found = check_rules(whole | {"x-kubernetes-validations": [{"rule": rule}]}, "s")
        assert found == [], (rule, found)
    assert (
        "undefined field 'labels'"
        in check_rules(whole | {"x-kubernetes-validations": [{"rule": "has(self.metadata.labels)"}]}, "s")[0].text()
    )


def test_no_rule_takes_for_ever() -> None:
    rule = {"rule": "self.all(a, self.all(b, self.all(c, a + b + c >= 0)))"}
    numbers = {"type": "array", "items": {"type": "integer"}, "x-kubernetes-validations": [rule]}
    # It would be refused for its estimate; the engine counts, too, for what is in the store already.
    assert "estimated rule cost exceeds budget" in check_rules(numbers, "s")[0].text()
    rules, out = compile_rules(numbers), []  # type: ignore[var-annotated]
    assert rules is not None
    rules.run(list(range(1000)), "spec", out)
    assert "actual cost limit exceeded" in out[0].text()


def test_transitions() -> None:
    grows = schema("self.min >= oldSelf.min")
    assert run(grows, VALUE) == []
    assert run(grows, VALUE, VALUE | {"min": 0}) == []
    assert run(grows, VALUE, VALUE | {"min": 5}) == ["spec: Invalid value: failed rule: self.min >= oldSelf.min"]
    fixed = schema("oldSelf.hasValue() ? self.min == oldSelf.value().min : self.min == 1", optionalOldSelf=True)
    assert run(fixed, VALUE) == [] and len(run(fixed, VALUE | {"min": 2})) == 1
    assert len(run(fixed, VALUE, VALUE | {"min": 2})) == 1
    # Other rules are not asked again of what did not change.
    assert run(schema("self.min > 5"), VALUE, VALUE) == []
    item = {
        "type": "object",
        "properties": {"k": {"type": "string"}, "n": {"type": "integer"}},
        "required": ["k"],
        "x-kubernetes-validations": [{"rule": "self.n >= oldSelf.n"}],
    }
    keyed = {"type": "array", "items": item, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]}
    one, two = {"k": "a", "n": 1}, {"k": "b", "n": 2}
    assert run(keyed, [two, one], [one, two]) == []
    assert run(keyed, [two, one | {"n": 0}], [one, two]) == ["spec[1]: Invalid value: failed rule: self.n >= oldSelf.n"]
    loose = {"type": "array", "items": item}
    assert "uncorrelatable portion" in check_rules(loose, "s")[0].text()


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"rule": ""}, "s.x-kubernetes-validations[0].rule: Required value: rule is not specified"),
        ({"rule": "self.x +"}, "compilation failed: ERROR: <input>:1:9: Syntax error"),
        ({"rule": "self.nope > 1"}, "undefined field 'nope'\n | self.nope > 1\n | ....^"),
        ({"rule": "true || has(self.nope)"}, "ERROR: <input>:1:12: undefined field 'nope'"),
        ({"rule": "size(self)"}, "must evaluate to a bool"),
        ({"rule": "foo"}, "undeclared reference to 'foo' (in container '')\n | foo\n | ^"),
        ({"rule": "true", "reason": "Whim"}, 's.x-kubernetes-validations[0].reason: Unsupported value: "Whim"'),
        ({"rule": "true", "messageExpression": "1"}, "messageExpression must evaluate to a string"),
        ({"rule": "true", "optionalOldSelf": True}, "may not be set if oldSelf is not used in rule"),
        ({"rule": "true", "fieldPath": ".nope"}, "does not refer to a valid field"),
        ({"rule": "true", "message": "a\nb"}, "message must not contain line breaks"),
    ],
)
def test_definitions(rule: Tree, words: str) -> None:
    found = check_rules(schema("true") | {"x-kubernetes-validations": [rule]}, "s")
    assert len(found) == 1 and words in found[0].text(), found


async def test_served(call: Caller) -> None:
    spec = {
        "type": "object",
        "properties": {
            "cronSpec": {"type": "string"},
            "n": {"type": "integer"},
            "fixed": {
                "type": "string",
                "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "cannot change"}],
            },
        },
        "x-kubernetes-validations": [
            {"rule": "!has(self.n) || self.n < 5", "message": "n must be small", "fieldPath": ".n"}
        ],
    }
    definition = simple(spec)
    bad = simple(spec | {"x-kubernetes-validations": [{"rule": "self."}]})
    (cause,) = await call.refused(bad)
    assert "x-kubernetes-validations[0].rule: Invalid value: apiextensions.ValidationRule{" in cause
    await call.define(definition)
    await call.ok("POST", PATH, crontab("a", n=1, fixed="f"))
    refused = await call("POST", PATH, crontab("b", n=7))
    assert refused.code == 422 and refused.message.endswith("is invalid: spec.n: Invalid value: n must be small")
    refused = await call("PATCH", f"{PATH}/a", {"spec": {"fixed": "g"}}, MERGE)
    assert refused.code == 422 and 'spec.fixed: Invalid value: "g": cannot change' in refused.message
    refused = await call("POST", PATH, crontab("b", n="x"))
    assert refused.tree["details"]["causes"][1]["message"].endswith(
        "correct the existing errors to complete validation"
    )
