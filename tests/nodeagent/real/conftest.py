"""These tests run inside a throwaway node too; see the runtime's conftest."""

from tests.nodeagent.runtime.conftest import cri_node, image_root, kind, pytest_pyfunc_call

__all__ = ["cri_node", "image_root", "kind", "pytest_pyfunc_call"]
