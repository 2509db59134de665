"""The order of a start: what is large is imported before the broker is called, which gives up who is silent."""

import importlib.util
import sys

import pytest

from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.bus.port import BusUnavailable
from bulkhead.runtime.context import ServiceIdentity
from bulkhead.runtime.process.main import serve
from bulkhead_services.tool_executor.settings import Settings


async def test_what_settings_need_is_imported_before_the_broker_is_called(monkeypatch, tmp_path):
    name = "large_module_of_a_start"
    (tmp_path / f"{name}.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    imported: list[bool] = []

    async def connect(*_: object, **__: object) -> None:
        imported.append(name in sys.modules)
        raise BusUnavailable("there is none")

    monkeypatch.setattr(JetStreamBus, "connect", connect)
    monkeypatch.setattr(ServiceIdentity, "load", lambda *_, **__: ServiceIdentity("", "", {}))
    monkeypatch.setattr(Settings, "needed_modules", lambda _: (name,))
    with pytest.raises(BusUnavailable):
        await serve("tool_executor", lambda context, settings: None, Settings())
    assert imported == [True]


def test_the_executor_needs_the_sdks_of_its_files_and_no_others(tmp_path):
    assert Settings().needed_modules() == ()
    needed = Settings(mcp_file=tmp_path / "mcp.yaml", agents_file=tmp_path / "agents.yaml").needed_modules()
    assert len(needed) == 2 and all(importlib.util.find_spec(name) for name in needed)
