"""Containers for real: crun, conmon, overlayfs, pod networks, inside a throwaway node."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodeagent.runtime.oci import OciRuntime
from tests.nodeagent.runtime import harness

pytestmark = pytest.mark.node


def test_a_container_runs_logs_and_ends(image_root: Path, tmp_path: Path) -> None:
    async def body(oci: OciRuntime) -> None:
        sandbox = await oci.run_sandbox(harness.sandbox_config())
        container, text = await harness.result(oci, sandbox, "sh", "-c", "echo hello; hostname; exit 3", name="c")
        assert text == "hello\npod\n"
        assert (container.exit_code, container.reason) == (3, "Error")
        assert container.created <= container.started <= container.finished
        await oci.remove_sandbox(sandbox)
        assert await oci.list_containers() == [] and await oci.list_sandboxes() == []

    harness.run(image_root, tmp_path, body)
