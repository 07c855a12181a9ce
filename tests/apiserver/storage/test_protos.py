"""The generated code belongs to the .proto beside it."""

from __future__ import annotations

from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).parents[3]


def descriptor(code: Path) -> str:
    """The line that holds the messages; the others depend on the version of the generator."""
    (line,) = (line for line in code.read_text().splitlines() if "AddSerializedFile(" in line)
    return line


def test_generated_code_is_up_to_date(tmp_path: Path) -> None:
    assert protoc.main(["", f"-I{ROOT}", f"--python_out={tmp_path}", str(ROOT / "protos/etcd.proto")]) == 0
    assert descriptor(tmp_path / "protos/etcd_pb2.py") == descriptor(ROOT / "protos/etcd_pb2.py")
