"""Estimates of what rules may cost, and definitions that are refused for it."""

from __future__ import annotations

from typing import Any

import pytest

from apiserver.cel.engine import compile_cel
from apiserver.crd import ast
from apiserver.crd.costs import Estimate, cardinality, exceeded, largest, smallest
from apiserver.crd.rules import check_rules
from apiserver.crd.views import type_of

Schema = dict[str, Any]
TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}


def many(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items} | more


def fields(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties}


def estimated(source: str, schema: Schema) -> int:
    kind = type_of(schema)
    compiled = compile_cel(source, (("self", kind), ("oldSelf", kind)))
    return Estimate(schema, False).cost(ast.parse(compiled.serialized()))


def keyed(values: Schema, **more: Any) -> Schema:
    return {"type": "object", "additionalProperties": values} | more


def texts(form: str) -> Schema:
    return {"type": "string", "format": form}


# What kube-apiserver estimates for the same rules.
EACH = "self.all(x, true)"
FIGURES = [
    (EACH, many(NUMBER), 4718591),
    (EACH, many(NUMBER, maxItems=10), 32),
    (EACH, many(TEXT), 3145727),
    (EACH, many({"type": "boolean"}), 1887437),
    (EACH, many(many(NUMBER)), 3145727),
    (EACH, many({"type": "object", "properties": {"required": TEXT}, "required": ["required"]}), 555128),
    (EACH, many({"x-kubernetes-int-or-string": True}), 4718591),
    (EACH, many(texts("duration")), 2359295),
    (EACH, many(texts("date")), 725936),
    (EACH, many(texts("date-time")), 428963),
    (EACH, keyed(NUMBER), 1348169),
    (EACH, keyed(TEXT), 1179647),
    (EACH, keyed({"type": "boolean"}), 943718),
    (EACH, keyed(texts("duration")), 1048577),
    (EACH, keyed(texts("date")), 524288),
    (EACH, keyed(texts("date-time")), 349526),
    ("has(self.x)", keyed(NUMBER), 0),
    ("self.contains('test')", TEXT, 314574),
    ("self.contains('test')", {"type": "string", "maxLength": 10}, 5),
    ("self.contains('A')", {"type": "string", "enum": ["A", "B", "C", "LongValue"]}, 2),
    ("self.contains('A')", {"type": "string", "enum": ["A", "LongValue"], "maxLength": 1000}, 401),
    ("self.startsWith('test')", TEXT, 2),
    ("size(self + 'hello') > size('hello')", TEXT, 314578),
    ("self[1] == 0.0", many(NUMBER), 2),
    ("self[1] == self[1]", many(TEXT), 314577),
    ("self.all(x, self.all(y, true))", many(NUMBER, maxItems=10), 352),
    ("self.all(x, self.all(y, self.all(z, true)))", many(NUMBER, maxItems=10), 3552),
    ("self.matches('x')", TEXT, 314574),
    ("self.matches('x')", {"type": "string", "maxLength": 50}, 22),
    ("''.matches('(((((((((())))))))))[0-9]')", TEXT, 7),
    ("self.matches('')", TEXT, 1),
    ("self == 'x'", TEXT, 2),
    ("self == 'x'", {"type": "string", "maxLength": 0}, 1),
    ("self.all(x, x == 0.0)", many(NUMBER), 6291454),
    ("self[0] == false", many({"type": "boolean"}), 2),
    ("self[0][0] == -1.0", many(many(NUMBER)), 3),
    ("self[0].x > 2.0", many(keyed(NUMBER)), 4),
    ("self[0].getHours() == 2", many(texts("duration")), 4),
    ("self.find('[0-9]+') == ''", TEXT, 629147),
    ("self.lowerAscii() == 'lower!'", TEXT, 314575),
    ("oldSelf.size() == self.size()", keyed({"type": "integer"}), 5),
    ("self['a'] == self['b']", keyed(texts("date-time")), 8),
]


@pytest.mark.parametrize(("source", "schema", "cost"), FIGURES)
def test_expressions(source: str, schema: Schema, cost: int) -> None:
    assert estimated(source, schema) == cost


@pytest.mark.parametrize(
    ("source", "schema", "cost"),
    [
        ("self.a in ['x', 'y']", fields(a=TEXT), 14),
        (
            "self.all(x, x > 1)",
            many(NUMBER, maxItems=10),
            2 + 10 * 5,
        ),  # numbers of two kinds: the engine cannot check it
        ("self.all(k, self[k] > 1.0)", keyed(NUMBER, maxProperties=4), 2 + 4 * 7),
        ("cel.bind(v, self, v.size() > 1)", TEXT, 14),
        ("self ? 1 == 1 : [1, 2].exists(x, x > 1)", {"type": "boolean"}, 24),
    ],
)
def test_other_expressions(source: str, schema: Schema, cost: int) -> None:
    assert estimated(source, schema) == cost


def test_sizes() -> None:
    assert smallest({"type": "object", "properties": {"ab": TEXT, "c": NUMBER}, "required": ["ab"]}) == 2 + 2 + 4 + 2
    assert largest({"type": "string", "maxLength": 5}) == 20 and largest({"type": "string", "enum": ["a", "bcd"]}) == 3
    assert largest(many(NUMBER)) == 1572863 and largest(many(NUMBER, maxItems=3)) == 3 and largest(NUMBER) is None
    assert cardinality(NUMBER, 7) == 7 and cardinality(NUMBER, None) == 1572864
    assert exceeded("x", 130, 100).startswith("x exceeds budget by factor of 1.300000x (try")
    assert "2.5x" in exceeded("x", 250, 100) and "more than 100x" in exceeded("x", 100_000, 100)


def ruled(schema: Schema, rule: str) -> Schema:
    return schema | {"x-kubernetes-validations": [{"rule": rule}]}


def test_definitions() -> None:
    within = ruled(many({"type": "string", "maxLength": 10}, maxItems=25), "self.all(x, x.contains('a'))")
    assert check_rules(fields(a=within), "s") == []
    endless = ruled(many(TEXT), "self.all(x, x.contains('a string'))")
    (cause,) = check_rules(fields(a=endless), "s")
    assert cause.field == "s.properties[a].x-kubernetes-validations[0].rule"
    assert cause.message == (
        "Forbidden: estimated rule cost exceeds budget by factor of more than 100x (try simplifying the rule, or adding "
        "maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
    # A cheap rule on each element of a list without end.
    nested = many(ruled(fields(v=many(NUMBER, maxItems=10)), "self.v.all(x, x > 1)"))
    (cause,) = check_rules(fields(a=nested), "s")
    assert "estimated rule cost exceeds budget by factor of" in cause.message
    assert check_rules(fields(a=nested | {"maxItems": 100}), "s") == []


def test_all_rules_together() -> None:
    one = ruled(many(NUMBER), "self.all(x, x > 1)")
    crowd = {f"f{i}": one for i in range(13)}
    causes = check_rules(fields(**crowd), "s")
    assert [c.field for c in causes if c.field.endswith("rule")][:1] == [
        "s.properties[f0].x-kubernetes-validations[0].rule"
    ]
    assert (
        causes[-1].field == "s"
        and "cost total for entire OpenAPIv3 schema exceeds budget by factor of" in causes[-1].message
    )
    assert check_rules(fields(**dict(list(crowd.items())[:12])), "s") == []
