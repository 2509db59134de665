"""The signer grants pinned tools of MCP servers, with what their operator declared, to the tenants they are for."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from bulkhead.bus.memory.broker import MemoryBroker
from bulkhead.bus.memory.bus import MemoryBus
from bulkhead.runtime.background import BackgroundTasks
from bulkhead.tools.mcp_file import pins_path
from bulkhead.tools.mcp_pins import AdvertisedTool, pin_tools
from bulkhead_services.signer.core import TenantsFileError
from bulkhead_services.signer.effects import GrantSigner
from bulkhead_services.signer.settings import Settings
from tests.unit.services.signer.test_signer import DOCUMENT

SERVER: dict[str, Any] = {"urls": ["http://desk/mcp"], "tools": {"refund": {"idempotent": True, "most_calls": 2}}}


def _settings(folder: Path, server: dict[str, Any]) -> Settings:
    file, tenants = folder / "mcp.yaml", folder / "tenants.yaml"
    file.write_text(yaml.safe_dump({"servers": {"desk": server}}))
    pinned = pin_tools("desk", [AdvertisedTool("refund", "", "Refunds.", {"type": "object"}, None)])
    pins_path(file).write_text(json.dumps({"desk": pinned.model_dump()}))
    document = json.loads(json.dumps(DOCUMENT))
    document["tenants"]["acme"]["tools"].append("desk_refund")
    tenants.write_text(yaml.safe_dump(document))
    return Settings(mcp_file=file, tenants_file=tenants)


async def _started(settings: Settings) -> GrantSigner:
    bus = MemoryBus(MemoryBroker.for_mesh(), "signer")
    context = SimpleNamespace(verifier=None, bus=bus, background=BackgroundTasks())
    signer = GrantSigner(context, settings)  # type: ignore[arg-type]
    await signer.start()
    await signer.stop()
    return signer


async def test_a_pinned_tool_can_be_granted_as_it_was_declared(tmp_path: Path) -> None:
    signer = await _started(_settings(tmp_path, SERVER))
    assert signer._policies is not None
    spec = signer._policies.tools["desk_refund"]
    assert (spec.effect, spec.idempotent, spec.most_calls) == ("write", True, 2)


async def test_a_tenant_that_the_server_is_not_for_cannot_have_its_tools(tmp_path: Path) -> None:
    with pytest.raises(TenantsFileError, match="acme: the MCP server of desk_refund is for quiet alone"):
        await _started(_settings(tmp_path, SERVER | {"tenants": ["quiet"]}))
