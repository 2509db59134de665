"""What an evaluator makes of a mesh that is away for a moment: nothing is reported of an evaluation for that."""

import asyncio
import time
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from bulkhead.client import Refused
from bulkhead.evaluation.statement import make_key
from bulkhead_cli.evaluation import serve
from bulkhead_cli.output import CommandError, Exit

DISK_FULL = CommandError(Exit.FAILED, "the disk is full", "make room")


class Evaluations:
    """The one that waits, as the mesh lists it; the first look is refused."""

    def __init__(self) -> None:
        self.looks, self.reported = 0, list[int]()

    async def evaluations(self, before: int) -> dict:
        self.looks += 1
        if self.looks == 1:
            raise Refused(503, {"detail": "the registry does not answer"})
        evaluation = {"number": 1, "case_set": "answers", "requested_unix_ms": time.time_ns() // 1_000_000}
        evaluation |= {"tenant": "demo", "prompts": {"worker.step": "0" * 64}, "act": "a", "release": "trial.1"}
        return {"evaluations": [{"evaluation": evaluation, "report": None}], "more": False}

    async def report_evaluation(self, number: int, envelope: str) -> None:
        self.reported.append(number)


@pytest.mark.parametrize(
    ("error", "tries", "reported"),
    [
        (Refused(503, {"detail": "the registry does not answer"}), 2, []),
        (DISK_FULL, 1, []),
        (CommandError(Exit.USAGE, "the set is broken", "mend it"), 1, [1]),
    ],
)
async def test_what_passes_by_is_no_word_on_an_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, tries: int, reported: list[int]
) -> None:
    (tmp_path / "answers.jsonl").write_text('{"name": "a", "input": "x", "checks": [{"contains": "y"}]}')
    make_key(tmp_path / "key.pem")
    mesh, tried = Evaluations(), []
    serving = asyncio.current_task()
    assert serving is not None

    @asynccontextmanager
    async def mesh_client():
        yield mesh

    async def evaluate(*arguments: object) -> None:
        tried.append(arguments)
        if len(tried) == tries:
            asyncio.get_running_loop().call_later(0.05, serving.cancel)
        raise error

    monkeypatch.setattr(serve, "POLL_S", 0.01)
    monkeypatch.setattr(serve, "_evaluate", evaluate)
    request = serve.ServeRequest(tmp_path, tmp_path / "key.pem", 1, 1, 1_000_000, 60.0, once=False)
    assert await serve.serve_evaluations(SimpleNamespace(mesh_client=mesh_client), tmp_path, request) == Exit.OK
    assert (len(tried) >= tries, mesh.reported) == (True, reported)
