"""YAML as Go reads it, duplicate keys, List kinds."""

from __future__ import annotations

import itertools
import json
import json as stdlib_json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch.api import serialization as s
from navarch.api.errors import BadRequest


def test_yaml_values() -> None:
    text = """
a: 1
b: yes
t: 2020-01-01T00:00:00Z
e: 1e3
s: 1:30
o: 0644
x: !!str 12
q: "12"
f: =
8080: port
base: &A {p: 1}
ref: {<<: *A, z: 2}
none: ~
"""
    assert s.decode_yaml(text) == [
        {
            "a": 1,
            "b": True,
            "t": "2020-01-01T00:00:00Z",
            "e": 1000.0,
            "s": "1:30",
            "o": 420,
            "x": "12",
            "q": "12",
            "f": "=",
            "8080": "port",
            "base": {"p": 1},
            "ref": {"z": 2, "p": 1},
            "none": None,
        }
    ]


def test_documents_and_duplicates() -> None:
    found = list(s.decode_yaml_documents("---\na: 1\na: 2\n---\n---\nl: [{k: {z: 1, z: 2}}]\n"))
    assert found == [({"a": 2}, ["a"]), ({"l": [{"k": {"z": 2}}]}, ["l[0].k.z"])]
    with pytest.raises(s.DecodeError, match="line 1"):
        s.decode_yaml("a: [")
    with pytest.raises(s.DecodeError, match="contains itself"):
        s.decode_yaml("a: &x [*x]")


def test_lists_expand() -> None:
    trees = s.decode_yaml('{"kind": "List", "items": [{"kind": "Pod"}, {"kind": "PodList", "items": [{"kind": "X"}]}]}')
    assert s.expand_lists(trees) == [{"kind": "Pod"}, {"kind": "X"}]


def test_json_duplicates() -> None:
    data = b'{"a":1,"a":2, "b":[{"c":1,"c":3}]}'
    assert s.json_duplicates(data, s.decode_json(data)) == ["a", "b[0].c"]
    assert s.json_duplicates(b'{"a": 1}', {"a": 1}) == []
    with pytest.raises(BadRequest):
        s.decode_object(b"[1]")
    with pytest.raises(BadRequest):
        s.decode_object(b"{")


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(
        ["y", "no", "1e3", "0x1", "~", "null", "", "12", ".5", "1:30", "=", "<<", "2020-01-01", "a\nb", "- x", "#"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=4), json_values, max_size=4))
def test_yaml_round_trip(tree: dict[str, Any]) -> None:
    assert s.decode_yaml("---\n" + s.dump_yaml(tree)) == ([tree])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{bad", "invalid character 'b' looking for beginning of object key string"),
        ('{"a":1', "unexpected end of JSON input"),
        ('{"a" 1}', "invalid character '1' after object key"),
        ('{"a":1 "b":2}', "invalid character '\"' after object key:value pair"),
        ("[1 2]", "invalid character '2' after array element"),
        ("{} {}", "invalid character '{' after top-level value"),
        ("tru3", "invalid character '3' in literal true (expecting 'e')"),
        ("-x", "invalid character 'x' in numeric literal"),
        ('"a\nb"', "invalid character '\\n' in string literal"),
        ("", "unexpected end of JSON input"),
        ("yes", "invalid character 'y' looking for beginning of value"),
        ("[" * 5000, "exceeded max depth"),
    ],
)
def test_syntax_errors_in_go_words(text: str, message: str) -> None:
    with pytest.raises(s.DecodeError) as caught:
        s.decode_json(text)
    assert str(caught.value) == message


def test_yaml_that_grows_without_bounds_is_refused() -> None:
    levels = "abcdefghijklmnopqrstuvwxyz"
    text = "a: &a [1, 1]\n" + "".join(
        f"{upper}: &{upper} [{', '.join(['*' + lower] * 9)}]\n" for lower, upper in itertools.pairwise(levels)
    )
    with pytest.raises(s.DecodeError, match="excessive aliasing"):
        s.decode_yaml(text)
    # What is shared within reason is fine.
    assert s.decode_yaml("a: &x [1, 2]\n" + "".join(f"k{n}: *x\n" for n in range(2000)))[0]["k1999"] == [1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: b: c\n", "mapping values are not allowed in this context"),
        ("a: 1\nb: c: d\n", "line 2: mapping values are not allowed in this context"),
        ("x: 1\ny\n", "line 3: could not find expected ':'"),
        ("\tb: c\n", "found character that cannot start any token"),
        ("a: [\n", "line 1: did not find expected node content"),
    ],
)
def test_yaml_errors_name_the_line_as_kubectl_does(text: str, message: str) -> None:
    with pytest.raises(s.DecodeError) as refused:
        s.decode_yaml(text)
    assert str(refused.value) == f"error converting YAML to JSON: yaml: {message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "exceeded maximum nesting depth"),
        ("- " * 100_000, "exceeded maximum nesting depth"),
        ("[" * 300 + "]" * 300, "exceeded max depth"),
        ("a:" + " {a:" * 260 + " 1" + "}" * 260, "exceeded max depth"),
        ("a: .nan", "json: unsupported value: NaN"),
        ("a: [1, -.Inf]", "json: unsupported value: -Inf"),
        ("a: !!binary '***'", "!!binary value contains invalid base64 data"),
        ("a: !!binary 'abc'", "!!binary value contains invalid base64 data"),
        ("a: \x01", "control characters are not allowed"),
    ],
)
def test_yaml_that_no_json_can_say(text: str, message: str) -> None:
    with pytest.raises(s.DecodeError, match=f"error converting YAML to JSON: .*{message}"):
        s.decode_yaml(text)


def test_numbers_that_do_not_fit() -> None:
    """As Go reads them: what has more than 64 bits is a float if it can be written as one, else a text."""
    assert s.decode_yaml("[18446744073709551615, -9223372036854775808]") == [[18446744073709551615, -9223372036854775808]]
    assert s.decode_yaml("[18446744073709551616, 0x10000000000000000]") == [[18446744073709551616.0, "0x10000000000000000"]]
    assert s.decode_yaml("[1e999, 1_000_000_000_000_000_000_000]") == [["1e999", 1e21]]
    (large,) = s.decode_yaml("1" + "0" * 1_000_000)
    assert isinstance(large, str)
    assert s.decode_yaml("a: !!binary aGk=") == [{"a": "hi"}]


def test_few_of_many_strict_errors_are_told() -> None:
    text = "\n".join(f"a{i}: 1\na{i}: 2" for i in range(500))
    ((_, duplicates),) = s.decode_yaml_documents(text)
    assert len(duplicates) == 100
    data = ("{" + ",".join(f'"a{i}":1, "a{i}":2' for i in range(500)) + "}").encode()
    assert len(s.json_duplicates(data, s.decode_json(data))) == 100


_TEXTS = st.text(st.sampled_from("a: ,{}[]#&*!|>%@`'-?~\x7f\u00e9\n\t\"\\\\"), max_size=6) | st.sampled_from(
    ["true", "null", "~", "1", "1e3", "<<", "=", "2020-01-01", "k" * 1100, "yes", "0o7", "---", "..."]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | _TEXTS
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(_TEXTS, _JSON, max_size=4))
def test_json_is_yaml_the_short_way_and_the_long_way(tree: Any) -> None:
    """The short cut for JSON answers what YAML's parser answers; a text in place of bytes goes the long way."""
    data = orjson.dumps(tree)

    def read(text: str | bytes) -> Any:
        try:
            return repr(list(s.decode_yaml_documents(text)))
        except s.DecodeError as error:
            return str(error)

    assert read(data) == read(data.decode())


@given(_JSON, st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t:\r ")]), st.booleans())
def test_duplicates_are_found_in_any_spacing(value: Any, separators: tuple[str, str], ascii_only: bool) -> None:
    text = json.dumps({"a": value, "b c": 1}, separators=separators, ensure_ascii=ascii_only)
    data = text.encode()
    assert s.json_duplicates(data, s.decode_json(data)) == []
    for more in (f'"a"{separators[1]}{json.dumps(value)}', '"b c":1'):
        twice = f"{text[:-1]}{separators[0]}{more}}}".encode()
        assert len(s.json_duplicates(twice, s.decode_json(twice))) == 1


@pytest.mark.parametrize(
    ("text", "json"),
    [
        ("a: 1.0", b'{"a":1}'), ("a: 1e3", b'{"a":1000}'), ("a: -0.0", b'{"a":0}'), ("a: 0.5", b'{"a":0.5}'),
        ("a: [2.0, 1e20]", b'{"a":[2,100000000000000000000]}'), ('a: "1.0"', b'{"a":"1.0"}'), ("a: 1e21", b'{"a":1e21}'),
        ('{"a":1.0,"b":"nginx:1.25"}', b'{"a":1,"b":"nginx:1.25"}'),
    ],
)  # fmt: skip
def test_whole_numbers_of_yaml_are_integers(text: str, json: bytes) -> None:
    """As in Go's JSON, into which Kubernetes turns YAML: integer fields take 1.0."""
    ((tree, _),) = s.decode_yaml_documents(text.encode())
    assert stdlib_json.dumps(tree, separators=(",", ":")).encode().replace(b"1e+21", b"1e21") == json
