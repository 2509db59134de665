"""One browser for the tests that need one."""

from tests.e2e.console.conftest import browser, pictures

__all__ = ["browser", "pictures"]
