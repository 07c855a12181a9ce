"""The notebooks of examples/ run from top to bottom, and show what they promise."""

from __future__ import annotations

from pathlib import Path

import nbclient
import nbformat
import pytest
from jupyter_client import AsyncKernelManager

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_it_runs(path: Path, tmp_path: Path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    manager = AsyncKernelManager(transport="ipc", ip=str(tmp_path / "kernel"))  # no port
    resources = {"metadata": {"path": str(EXAMPLES)}}
    nbclient.NotebookClient(notebook, km=manager, timeout=300, resources=resources).execute()
    outputs = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    assert [o for o in outputs if o.output_type in ("error", "stream") and o.get("name") != "stdout"] == []
    kinds = [kind for o in outputs if "data" in o for kind in o.data]
    assert kinds.count("image/png") == 2 and kinds.count("text/html") == 3  # two figures, three tables
    said = "".join(o.text for o in outputs if o.output_type == "stream")
    assert "nodes could take it" in said and said.count("true: ") == 2 and "NOT TRUE" not in said


def test_there_is_one():
    assert NOTEBOOKS
