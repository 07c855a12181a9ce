"""Other machines as clients: where the API server listens, its names, and the kubeconfig for them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography import x509

from lab import reach
from lab.components import listen_addresses
from lab.identities import issue_all
from lab.kubeconfigs import for_elsewhere
from lab.paths import LabError, LabPaths, LabRecord
from lab.reach import certificate_names, local_addresses


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "own_addresses", lambda: ["192.0.2.7", "2001:db8::7"])


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7", "0.0.0.0", "::"])
def test_addresses_of_this_machine_are_taken(address: str) -> None:
    local_addresses([address])


@pytest.mark.parametrize(
    ("address", "text"), [("192.0.2.8", "does not have that address; it has 192.0.2.7"), ("web.example", "give an IP address")]
)
def test_others_are_refused(address: str, text: str) -> None:
    with pytest.raises(LabError, match=text):
        local_addresses([address])


def test_where_it_listens() -> None:
    record = LabRecord("x", 200, 6443, "sqlite", listen=["192.0.2.7"])
    assert listen_addresses(record, False) == ["127.0.0.1", "192.0.2.7"]
    assert listen_addresses(record, True) == ["127.0.0.1", "10.200.128.1", "192.0.2.7"]
    record.listen = ["0.0.0.0"]
    assert listen_addresses(record, True) == ["0.0.0.0"], "that is the lab's own, too"


def test_names_of_a_server_that_listens_everywhere() -> None:
    assert certificate_names([]) == []
    assert certificate_names(["0.0.0.0"])[:2] == ["192.0.2.7", "2001:db8::7"]
    assert certificate_names(["192.0.2.7"])[0] == "192.0.2.7"


def test_a_kubeconfig_for_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAVARCH_HOME", str(tmp_path))
    paths = LabPaths("x")
    paths.make()
    record = LabRecord("x", 200, 6443, "sqlite")
    issue_all(paths, record, False)
    with pytest.raises(LabError, match="use: navarch up --listen"):
        for_elsewhere(paths.kubeconfig, record, "192.0.2.7")
    record.listen, record.names = ["192.0.2.7"], ["192.0.2.7", "2001:db8::7", "lab.example"]
    issue_all(paths, record, False)
    certificate = x509.load_pem_x509_certificate((paths.pki / "apiserver.crt").read_bytes())
    named = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "lab.example" in named.get_values_for_type(x509.DNSName)
    for name, server in (("lab.example", "https://lab.example:6443"), ("2001:db8::7", "https://[2001:db8::7]:6443")):
        config = json.loads(for_elsewhere(paths.kubeconfig, record, name))
        assert config["clusters"][0]["cluster"]["server"] == server
        assert config["users"] and config["current-context"]
    with pytest.raises(LabError, match="names: 192"):
        for_elsewhere(paths.kubeconfig, record, "other.example")
