"""The generated code belongs to the .proto beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
from grpc_tools import protoc

ROOT = Path(__file__).parents[3]


def descriptor(code: Path) -> str:
    """The line that holds the messages; the others depend on the version of the generator."""
    (line,) = (line for line in code.read_text().splitlines() if "AddSerializedFile(" in line)
    return line


@pytest.mark.parametrize("name", ["etcd", "cri"])
def test_generated_code_is_up_to_date(tmp_path: Path, name: str) -> None:
    assert protoc.main(["", f"-I{ROOT}", f"--python_out={tmp_path}", str(ROOT / f"protos/{name}.proto")]) == 0
    assert descriptor(tmp_path / f"protos/{name}_pb2.py") == descriptor(ROOT / f"protos/{name}_pb2.py")
