"""The pure parts of the adapter of custom metrics: pages, rates, targets, questions."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.custommetrics.answers import Question, question
from controllers.custommetrics.exposition import BadPage, Series, read
from controllers.custommetrics.samples import STALE, Reading, Samples
from controllers.custommetrics.targets import NoTarget, Outcome, target
from navarch.api import kinds
from navarch.api.errors import StatusError
from navarch.api.selectors import EVERYTHING, parse_label_selector
from navarch.api.types import core_v1
from navarch.api.usage import declared_metrics

PAGE = b"""# TYPE http_requests_total counter
http_requests_total{code="200",path="/a"} 7
http_requests_total{code="500",path="/a"} 1
# TYPE queue gauge
queue 3.5
odd NaN
endless +Inf
jobs_total 4
# TYPE took histogram
took_bucket{le="1"} 2
took_bucket{le="+Inf"} 3
took_sum 4.5
took_count 3
"""


def counter(value: float, *labels: tuple[str, str], name: str = "hits") -> Series:
    return Series(name, True, labels, value)


def value(samples: Samples, metric: str, now: float, selector: str = "") -> float:
    reading = samples.reading("u", metric, parse_label_selector(selector), now)
    assert isinstance(reading, Reading), reading
    return reading.value


def test_a_page_has_gauges_counters_and_the_sums_of_histograms() -> None:
    series = read(PAGE, "text/plain", 100)
    assert [(s.name, s.grows, s.value) for s in series] == [
        ("http_requests", True, 7), ("http_requests", True, 1), ("queue", False, 3.5), ("jobs", True, 4),
        ("took_sum", True, 4.5), ("took_count", True, 3),
    ]  # fmt: skip
    assert series[0].labels == (("code", "200"), ("path", "/a"))
    openmetrics = b"# TYPE a counter\na_total 1\na_created 5\n# EOF\n"
    assert read(openmetrics, "application/openmetrics-text; version=1.0.0", 9) == [Series("a", True, (), 1)]


@pytest.mark.parametrize("page", [b"\xff", b"a{", b"a b c d", b'a{b="c} 1\n', b"<html>no</html>"])
def test_a_malformed_page_is_refused(page: bytes) -> None:
    with pytest.raises(BadPage, match="malformed page"):
        read(page, "text/plain", 10)


@given(st.binary(max_size=60))
def test_any_page_is_read_or_refused(page: bytes) -> None:
    for kind in ("text/plain", "application/openmetrics-text"):
        try:
            assert len(read(page, kind, 5)) <= 5
        except BadPage:
            pass


def test_a_page_with_too_many_series_is_refused() -> None:
    with pytest.raises(BadPage, match="more than 2 series"):
        read(b"a 1\nb 1\nc 1\n", "", 2)


def test_a_counter_is_a_rate_and_may_begin_anew() -> None:
    samples = Samples(100)
    samples.take("u", 100, [counter(1000)])
    assert samples.reading("u", "hits", EVERYTHING, 100) == "a rate needs two looks, and there was one"
    samples.take("u", 110, [counter(1050)])
    assert samples.reading("u", "hits_per_second", EVERYTHING, 110) == Reading(5.0, 110, 10.0)
    samples.take("u", 120, [counter(30)])  # the container was restarted
    assert value(samples, "hits", 120) == 4.0
    for now in range(130, 300, 10):
        samples.take("u", now, [counter(30)])
    assert value(samples, "hits", 290) == 0, "what is longer ago than the window does not count"


def test_a_series_that_is_new_began_at_zero_and_labels_select() -> None:
    samples = Samples(100)
    samples.take("u", 0, [counter(5, ("code", "200"))])
    samples.take("u", 10, [counter(15, ("code", "200")), counter(20, ("code", "500"))])
    assert value(samples, "hits", 10) == 3.0 and value(samples, "hits", 10, "code=500") == 2.0
    assert samples.reading("u", "hits", parse_label_selector("code=404"), 10) == "none of its series has labels code=404"
    rows = list(samples.series("u", "hits_per_second", parse_label_selector("code"), 10))
    assert [(labels, r.value) for labels, r in rows] == [({"code": "200"}, 1.0), ({"code": "500"}, 2.0)]


def test_a_gauge_goes_before_a_counter_of_its_name_and_old_values_are_not_served() -> None:
    samples = Samples(100)
    for now, count in ((0, 0), (10, 50)):
        samples.take("u", now, [Series("hits", False, (), 7), counter(count)])
    assert value(samples, "hits", 10) == 7 and value(samples, "hits_per_second", 10) == 5
    assert samples.reading("u", "hits", EVERYTHING, 11 + STALE) == "its last page is 121 s old"
    assert samples.reading("v", "hits", EVERYTHING, 10) == "not scraped yet"
    assert samples.reading("u", "x", EVERYTHING, 10) == "its page has no such metric (2 others)"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 6)), max_size=30))
def test_all_pods_together_are_bounded(pages: list[tuple[str, int]]) -> None:
    samples = Samples(10)
    kept: dict[str, int] = {}
    for now, (uid, size) in enumerate(pages):
        fits = sum(kept.values()) - kept.get(uid, 0) + size <= 10
        assert samples.take(uid, now, [Series(f"m{n}", False, (), n) for n in range(size)]) == fits
        if fits:
            kept[uid] = size
        assert samples.count == sum(kept.values())
    for uid in kept:
        samples.drop(uid)
    assert samples.count == 0


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=20))
def test_a_rate_is_never_negative(values: list[float]) -> None:
    samples = Samples(10)
    for n, one in enumerate(values):
        samples.take("u", n * 5.0, [counter(one)])
    assert value(samples, "hits", len(values) * 5.0) >= 0


def pod(ip: str = "10.1.0.2", declares: int = 8080, **notes: str) -> core_v1.Pod:
    annotations = {f"prometheus.io/{name}": text for name, text in notes.items()}
    tree = {
        "metadata": {"name": "p", "namespace": "d", "annotations": annotations}, "status": {"podIP": ip},
        "spec": {"containers": [{"name": "c", "ports": [{"containerPort": declares}] if declares else []}]},
    }  # fmt: skip
    out: core_v1.Pod = kinds.decoder(core_v1.Pod).decode(msgspec.json.encode(tree))
    return out


def test_annotations_name_the_page() -> None:
    assert str(target(pod(scrape="true"), ())) == "http://10.1.0.2:8080/metrics"
    one = target(pod(scrape="true", port="9", path="/m", scheme="https"), ["10.1.0.0/16"])
    assert str(one) == "https://10.1.0.2:9/m"


@pytest.mark.parametrize(
    ("one", "why"),
    [
        (pod(), 'has no annotation prometheus.io/scrape: "true"'),
        (pod(scrape="true", port="0"), "'0' is no port"),
        (pod(scrape="true", port="http"), "'http' is no port"),
        (pod(scrape="true", scheme="ftp"), "neither http nor https"),
        (pod(scrape="true", path="metrics"), "is no path"),
        (pod(scrape="true", path="/a\nHost: b"), "is no path"),
        (pod(scrape="true", ip=""), "has no address yet"),
        (pod(declares=0, scrape="true"), "no container declares a port"),
        (pod(ip="127.0.0.1", scrape="true"), "nobody answers at 127.0.0.1"),
        (pod(ip="x", scrape="true"), "nobody answers at x"),
    ],
)  # fmt: skip
def test_a_pod_without_a_page_says_why(one: core_v1.Pod, why: str) -> None:
    with pytest.raises(NoTarget, match=why):
        target(one, ["10.1.0.0/16"])


def test_a_page_that_fails_is_read_less_and_less_often() -> None:
    assert [Outcome(9, n).delay(15) for n in range(6)] == [15, 30, 60, 120, 240, 240]
    assert Outcome(1, 0).delay(15) == 5 and Outcome(9, 999).delay(15) == 240


def test_paths_are_questions() -> None:
    ask = "/apis/custom.metrics.k8s.io/v1beta2/"
    one = question(f"{ask}namespaces/d/pods/*/hits", {"labelSelector": "a=b", "metricLabelSelector": "c"})
    assert isinstance(one, Question) and one[2:6] == ("d", "pods", "*", "hits")
    assert (str(one.selector), str(one.metric_selector)) == ("a=b", "c")
    assert question(f"{ask}namespaces/d/metrics/hits", {})[2:6] == ("d", "namespaces", "d", "hits")
    assert question(f"{ask}nodes/n%2f1/hits", {})[2:6] == ("", "nodes", "n/1", "hits")
    assert question(ask, {}) == ("custom.metrics.k8s.io", "v1beta2")
    outer = question("/apis/external.metrics.k8s.io/v1beta1/namespaces/d/hits", {"labelSelector": "q=1"})
    assert isinstance(outer, Question) and str(outer.metric_selector) == "q=1"


@pytest.mark.parametrize(
    "path", ["/", "/apis", "/apis/a/b", "/apis/external.metrics.k8s.io/v1beta2/", "/apis/custom.metrics.k8s.io/v1beta2/a",
             "/apis/custom.metrics.k8s.io/v1beta2/namespaces/d/pods/*/"],
)  # fmt: skip
def test_other_paths_are_not_there(path: str) -> None:
    with pytest.raises(StatusError) as refusal:
        question(path, {})
    assert refusal.value.http_code == 404


def test_a_bad_selector_is_a_bad_request() -> None:
    with pytest.raises(StatusError) as refusal:
        question("/apis/custom.metrics.k8s.io/v1beta2/namespaces/d/pods/*/m", {"labelSelector": "a in b"})
    assert refusal.value.http_code == 400


def test_pods_of_simulations_declare_metrics() -> None:
    notes = {"hollow.navarch.dev/metric.hits": "2.5", "hollow.navarch.dev/metric.bad": "x", "hollow.navarch.dev/cpu": "1"}
    assert declared_metrics(notes) == {"hits": "2500m"}
    assert declared_metrics(None) == {}
