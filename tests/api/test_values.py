"""Quantities, names, selectors."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch.api import names, quantity, selectors
from navarch.api.kinds import KINDS
from navarch.api.types import meta_v1

SUFFIXES = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "e3": 1000,
    "E-2": Fraction(1, 100),
}


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("0.5", "500m"),
        ("1024Mi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("1000m", "1"),
        ("1e3", "1e3"),
        ("0.1n", "1n"),
        (2, "2"),
        ("1023Ki", "1023Ki"),
        ("0.5Ki", "512"),
        ("-1.5", "-1500m"),
        ("+1k", "1k"),
        (0.25, "250m"),
        ("0", "0"),
        ("0Mi", "0"),
        ("1500M", "1500M"),
        ("1E", "1E"),
        ("1e999999999", "9223372036854775807"),
    ],
)
def test_canonical(text: quantity.Quantity, canonical: str) -> None:
    assert quantity.canonical(text) == canonical
    assert quantity.canonical(canonical) == canonical


@pytest.mark.parametrize("text", ["", "a", "1.1.1", "1ki", "1 Gi", "--1", "1e", True])
def test_not_a_quantity(text: str) -> None:
    with pytest.raises(ValueError):
        quantity.parse(text)


amounts = st.builds(
    lambda n, places, suffix: (f"{n}.{places}{suffix}" if places else f"{n}{suffix}", n, places, suffix),
    st.integers(0, 99999),
    st.from_regex(r"[0-9]{0,4}", fullmatch=True),
    st.sampled_from(sorted(SUFFIXES)),
)


@given(amounts, amounts)
def test_arithmetic_is_exact(left: tuple[str, int, str, str], right: tuple[str, int, str, str]) -> None:
    def exact(parts: tuple[str, int, str, str]) -> Fraction:
        _, n, places, suffix = parts
        number = (Fraction(int(f"{n}{places}"), 10 ** len(places)) if places else Fraction(n)) * SUFFIXES[suffix]
        nanos = number * 10**9
        return Fraction(-(-nanos.numerator // nanos.denominator), 10**9)

    a, b = exact(left), exact(right)
    limit = Fraction(2**63 - 1)
    assert quantity.parse(left[0]) == a
    assert quantity.parse(quantity.canonical(left[0])) == a
    if a + b <= limit:
        assert quantity.parse(quantity.add(left[0], right[0])) == a + b
        assert quantity.parse(quantity.subtract(left[0], right[0])) == a - b
    assert quantity.compare(left[0], right[0]) == (a > b) - (a < b)
    assert quantity.value(left[0]) == -(-a.numerator // a.denominator)


def test_names() -> None:
    assert not names.dns_label("a-1") and not names.dns_subdomain("a.b-c") and not names.qualified_name("a.io/b_C")
    assert (
        names.dns1035("1a")
        and names.dns_label("a.b")
        and names.qualified_name("/b") == ["prefix part must be non-empty"]
    )
    assert names.dns_label("x" * 64) == ["must be no more than 63 bytes"]
    assert names.label_value("") == [] and names.label_value("-x")
    assert names.dns_label("a\n")
    assert names.dns_label("A") == [
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an "
        "alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
    ]
    assert names.port_name("a--b") == ["must not contain consecutive hyphens"]
    assert names.config_key("..") == ["must not be '..'"]
    assert names.path_segment("a/b") == ["may not contain '/'"]
    assert (
        names.ip_address("1.2.3")
        and not names.ip_address("::1")
        and not names.cidr("10.0.0.0/8")
        and names.cidr("10.0.0.0")
    )


@pytest.mark.parametrize(
    ("text", "labels", "expected"),
    [
        ("a=b", {"a": "b"}, True),
        ("a==b,c", {"a": "b"}, False),
        ("a!=b", {}, True),
        ("!a", {}, True),
        ("a in (b, c)", {"a": "c"}, True),
        ("a notin (b)", {}, True),
        ("a", {"a": ""}, True),
        ("a>3", {"a": "4"}, True),
        ("a<3", {"a": "x"}, False),
        ("", {}, True),
        ("a=", {"a": ""}, True),
        ("a in ()", {"a": ""}, True),
        ("a=b,a=c", {"a": "b"}, False),
        (" a = b , c ", {"a": "b", "c": "1"}, True),
    ],
)
def test_label_selectors(text: str, labels: dict[str, str], expected: bool) -> None:
    selector = selectors.parse_label_selector(text)
    assert selector.matches(labels) is expected
    assert selectors.parse_label_selector(str(selector)).matches(labels) is expected


@pytest.mark.parametrize("text", ["=", "a b", "a in b", "a,", "a=b,,c", "a in (b", "-x=1", "a=b c", "a=(", "a>x"])
def test_label_selector_errors(text: str) -> None:
    with pytest.raises(ValueError, match="unable to parse requirement"):
        selectors.parse_label_selector(text)


def test_selectors_of_objects() -> None:
    assert not selectors.from_struct(None).matches({})
    assert selectors.from_struct(meta_v1.LabelSelector()).matches({})
    full = {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "NotIn", "values": ["d"]}]}
    selector = selectors.from_tree(full)
    assert selector.exact == {"a": "b"} and str(selector) == "a=b,c notin (d)"
    assert selector.matches({"a": "b"}) and not selector.matches({"a": "b", "c": "d"})
    assert not selectors.from_labels({}).matches({})


def test_field_selectors() -> None:
    selector = selectors.parse_field_selector(r"metadata.name=a\,b,status.phase!=Running,spec.x==y")
    assert selector.exact == {"metadata.name": "a,b", "spec.x": "y"}
    assert selector.matches({"metadata.name": "a,b", "spec.x": "y"})
    assert not selector.matches({"metadata.name": "a,b", "spec.x": "y", "status.phase": "Running"})
    assert selectors.parse_field_selector("").empty
    with pytest.raises(ValueError, match="invalid selector: 'abc'; can't understand 'abc'"):
        selectors.parse_field_selector("abc")


@pytest.mark.parametrize("name", ["a/b", "../secrets/x", "..", ".", "/", "x/../../kube-system/secrets/y"])
def test_a_name_is_one_segment_of_a_path(name: str) -> None:
    """Names in specs are other people's: imagePullSecrets, templates of classes."""
    kind = next(k for k in KINDS if k.kind == "Secret")
    for path, place in ((kind.path("ns", name), 6), (kind.path(name, "x"), 4)):
        parts = path.split("/")
        assert len(parts) == 7 and parts[place] not in (".", "..") and "secrets" in parts
    assert kind.path("ns", "a.b") == "/api/v1/namespaces/ns/secrets/a.b"
