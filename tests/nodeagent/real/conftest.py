"""These tests run inside a throwaway node too; see the runtime's conftest."""

from tests.nodeagent.runtime.conftest import image_root, pytest_pyfunc_call

__all__ = ["image_root", "pytest_pyfunc_call"]
