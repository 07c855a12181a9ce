"""Settings: refused before anything changes, in words that say what would do; and none that nobody reads."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from lab.paths import LabError
from lab.settings import MODULES, OWN, checked, known_settings, without

ROOT = Path(__file__).resolve().parents[2]

PLUGIN = """
from scheduler.framework.plugin import Plugin


class Mine(Plugin):
    name = "Mine"
"""


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("scheduler.nosuch", "1", 'scheduler has no setting "nosuch"; it has: config, plugin, pod-initial-backoff-seconds'),
        ("scheduler.pod-max-backof-seconds", "1", 'did you mean "pod-max-backoff-seconds"?'),
        ("schduler.config", "x", 'did you mean "scheduler.config"?'),
        ("scheduler", "1", "say COMPONENT.NAME=VALUE"),
        ("scheduler.pod-max-backoff-seconds", "0", 'scheduler.pod-max-backoff-seconds="0": expected seconds above 0'),
        ("scheduler.pod-max-backoff-seconds", "soon", "expected seconds above 0"),
        ("scheduler.config", "/nosuch/file", "scheduler.config=/nosuch/file: No such file or directory"),
        ("scheduler.plugin", "NoSuch", '"NoSuch" is no scheduler plugin'),
        ("scheduler.plugin", "nosuchmodule:Class", "No module named 'nosuchmodule'"),
        ("controllers.node-monitor-grace-period", "nan", "expected a duration"),
        ("controllers.node-monitor-period", "5s", 'did you mean "node-monitor-grace-period"?'),
        ("controllers.unhealthy-zone-threshold", "1.5", "expected a number from 0 to 1"),
        ("controllers.leader-elect", "perhaps", "expected true or false"),
        ("apiserver.event-ttl", "-1s", "expected a duration"),
        ("apiserver.service-node-port-range", "32767-30000", "expected LOW-HIGH"),
        ("apiserver.service-node-port-range", "many", "expected LOW-HIGH"),
        ("apiserver.bind-address", "0.0.0.0", "use: navarch up --listen ADDRESS"),
        ("apiserver.audit-policy-file", "/nosuch", "No such file"),
        ("agent.node-labels", "a b=c", "expected KEY=VALUE,... of valid labels"),
        ("agent.register-with-taints", "key:Never", "expected KEY=VALUE:EFFECT"),
        ("agent.max-pods", "0", "expected a whole number above 0"),
        ("agent.root-dir", "/", "is the lab's own"),
        ("proxy.dns-upstream", "my resolver", "expected an IP address"),
        ("hollow.node-lease-duration-seconds", "x", "expected a whole number above 0"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused(setting: str, value: str, message: str) -> None:
    with pytest.raises(LabError) as caught:
        checked({setting: value})
    assert message in str(caught.value)


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(LabError) as caught:
        checked({"proxy.x": "1", "agent.max-pods": "no", "agent.y": "2"})
    for part in ('proxy has no setting "x"', "agent.max-pods", 'agent has no setting "y"'):
        assert part in str(caught.value)


def test_what_is_right_is_kept() -> None:
    good = {
        "apiserver.event-ttl": "10m", "apiserver.min-request-timeout": "300", "controllers.node-monitor-grace-period": "4s",
        "agent.node-labels": "disk=ssd", "agent.register-node": "true", "scheduler.pod-max-backoff-seconds": "2.5",
        "hollow.node-lease-duration-seconds": "4", "proxy.dns-upstream": "9.9.9.9",
    }  # fmt: skip
    assert checked(good) == good


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class Mine(:\n    pass\n", ":1: invalid syntax"),
        ("import math\n\nx = 1 / 0\n", ":3: ZeroDivisionError: division by zero"),
        ("import nosuchmodule\n", ":1: No module named 'nosuchmodule'"),
        ("x = 1\n", "is no scheduler plugin"),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_refused_with_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "policy.py"
    file.write_text(text)
    with pytest.raises(LabError) as caught:
        checked({"scheduler.plugin": f"{file}:Mine"})
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_plugin_that_can_be_loaded_is_taken(tmp_path: Path) -> None:
    (tmp_path / "policy2.py").write_text(PLUGIN)
    checked({"scheduler.plugin": f"{tmp_path / 'policy2.py'}:Mine"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("profiles: [{plugins: {score: {enabled: [{name: NoSuch}]}}}]", "NoSuch"),
        ("profils: []", "profils"),
        ("a: [", "scheduler.yaml"),
        ("- 1\n", "one KubeSchedulerConfiguration is expected"),
    ],
)
def test_a_configuration_that_is_wrong_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    head = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n"
    (tmp_path / "scheduler.yaml").write_text(text if text.startswith("-") else head + text + "\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LabError) as caught:
        checked({"scheduler.config": "scheduler.yaml"})
    assert message in str(caught.value)


def test_files_are_kept_by_their_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "policy.yaml").write_text("x")
    monkeypatch.chdir(tmp_path)
    [path] = checked({"apiserver.audit-policy-file": "policy.yaml"}).values()
    assert path == str(tmp_path / "policy.yaml")


def test_settings_are_taken_back() -> None:
    settings = {"scheduler.plugin": "x", "agent.max-pods": "5"}
    assert without(settings, ["scheduler.plugin"]) == {"agent.max-pods": "5"}
    for wrong, message in (("scheduler.plugn", "did you mean"), ("x.y", "what is set: agent.max-pods, scheduler.plugin")):
        with pytest.raises(LabError, match=message):
            without(settings, [wrong])


@pytest.mark.parametrize("component", MODULES)
def test_what_is_the_labs_own_exists(component: str) -> None:
    import importlib

    assert not set(OWN.get(component, ())) - set(importlib.import_module(MODULES[component]).SETTINGS.kinds)
    assert known_settings(component)


def attributes_read(room: str) -> set[str]:
    """Names of attributes that a room's code reads, and the field names that it puts together of text."""
    out: set[str] = set()
    for path in (ROOT / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                out.add(node.attr)
    return out


def unread(config: Any, read: set[str]) -> list[str]:
    return [f.name for f in dataclasses.fields(config) if f.name not in read]


# Fields that the API server reads by a name that it puts together (apiserver/aggregation/authentication.py).
PARTS = ("username_headers", "uid_headers", "group_headers", "extra_headers_prefix")
BY_PUT_TOGETHER_NAME = {f"requestheader_{part}" for part in PARTS}


@pytest.mark.parametrize("room", ["apiserver", "controllers", "nodeagent"])
def test_no_setting_that_nobody_reads(room: str) -> None:
    import importlib

    config = importlib.import_module(f"{room}.config").Config
    assert not set(unread(config, attributes_read(room))) - BY_PUT_TOGETHER_NAME


def test_a_setting_that_nobody_reads_is_seen() -> None:
    @dataclasses.dataclass
    class Config:
        colour: str = "blue"
        bind_addresses: tuple[str, ...] = ()

    assert unread(Config, attributes_read("apiserver")) == ["colour"]


def test_every_option_of_the_scheduler_and_the_fleet_is_read() -> None:
    from nodeagent.hollow.options import SETTINGS as FLEET
    from nodeagent.hollow.options import parser
    from scheduler.options import SETTINGS

    flags = {flag for action in parser()._actions for flag in action.option_strings}
    assert {f"--{name}" for name in FLEET.kinds} <= flags
    read = attributes_read("scheduler") | attributes_read("nodeagent/hollow")
    names = {name.replace("-", "_") for name in SETTINGS.kinds} | {a.dest for a in parser()._actions if a.dest != "help"}
    assert not names - read
