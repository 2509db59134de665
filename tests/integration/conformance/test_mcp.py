"""The public conformance tests of MCP, as the folder BULKHEAD_REFERENCE_MCP holds them:

npm install --prefix DIR node@22 @modelcontextprotocol/conformance@0.2.0-alpha.12
"""

import os
from pathlib import Path

import pytest

from bulkhead_services.doors.mcp import server
from tests.integration.conformance.suite import conformance, with_key
from tests.integration.doors.mcp_mesh import mcp_mesh

DIR = os.environ.get("BULKHEAD_REFERENCE_MCP", "")
pytestmark = [pytest.mark.slow, pytest.mark.needs("public-suites")]
PACK = "tests.integration.conformance.tools"


@pytest.mark.parametrize("revision", ["2025-11-25", "2026-07-28"])
async def test_what_a_revision_requires_is_passed_but_for_what_is_named(tmp_path, monkeypatch, revision) -> None:
    """A failure that the file does not name fails here, and so does a name that fails no more."""
    monkeypatch.setattr(server, "PROGRESS_S", 0.1)
    expected = Path(__file__).parent / f"mcp_{revision}.yml"
    async with mcp_mesh(tmp_path, packs=(PACK,)) as here, with_key(here.stage.doors_url, here.key) as url:
        code, summary = await conformance(Path(DIR), url + "/mcp", revision, expected)
    assert code == 0, summary
