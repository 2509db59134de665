"""Code of a model that cannot be started is told as busy, and not as a fault of the tool."""

import subprocess
from types import SimpleNamespace

import pytest

from bulkhead.tools.api import Failed
from bulkhead_services.tool_executor.tools import run_python


def test_code_that_finds_no_free_process_may_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "run", refuse)
    failed = run_python.run({"code": "1"}, SimpleNamespace(max_output_bytes=100))  # type: ignore[arg-type]
    assert isinstance(failed, Failed)
    assert (failed.code, failed.transient) == ("sandbox_busy", True)
