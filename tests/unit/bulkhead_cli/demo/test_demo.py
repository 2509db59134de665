"""`bulkhead demo` prints its answer last: the timeline before it is longer than a screen."""

from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from bulkhead_cli.demo import conversation
from bulkhead_cli.demo import run as demo
from bulkhead_cli.output import Exit
from bulkhead_cli.screen import out
from bulkhead_infra.demo.corpus import generate_demo


async def test_the_answer_comes_after_the_timeline(tmp_path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    case = generate_demo(1)
    amount = f"The refund is {case.expected.currency} {case.expected.amount}."
    usage = dict.fromkeys(("cost_usd_micros", "input_tokens", "output_tokens", "model_calls", "tool_calls"), 1)
    document = {
        "task_id": "t1",
        "status": "succeeded",
        "answer": amount,
        "usage": usage | {"retrievals": 1},
        "duration_ms": 5,
        "steps_done": 1,
        "steps_total": 1,
        "result": {
            "citations": [{"document": name, "marker": "m", "start": 0, "end": 1} for name in case.expected.must_cite]
        },
    }

    @asynccontextmanager
    async def mesh(*args, **options):
        yield SimpleNamespace(units={}, url="http://127.0.0.1:1", credentials={"submitter": "key"})

    async def converse(*args):
        return Exit.OK, document

    async def show_timeline(*args, **options):
        out.print("the long timeline")

    monkeypatch.setattr(demo, "LocalMesh", mesh)
    monkeypatch.setattr(demo, "run_conversation", converse)
    monkeypatch.setattr(demo.broker, "show_timeline", show_timeline)
    assert await demo.run_in_processes(case, tmp_path) is Exit.OK
    text = capsys.readouterr().out
    assert text.index("the long timeline") < text.index(amount) < text.index("right:")


async def test_each_document_says_in_how_many_chunks_it_is(tmp_path, monkeypatch) -> None:
    class Client:
        """Takes documents; the task fails at once, which is no matter here."""

        def __init__(self, *args) -> None:
            self.chunks = iter(range(1, 9))

        async def __aenter__(self):
            return self

        async def __aexit__(self, *error) -> None:
            return None

        async def add_document(self, path):
            return {"outcome": "ingested", "name": path.name, "chunks": next(self.chunks)}

        async def submit(self, *args, **options):
            raise ConnectionError

    shown: list[str] = []
    screen = SimpleNamespace(print=lambda text, **style: shown.append(text))
    monkeypatch.setattr(conversation, "Mesh", Client)
    with pytest.raises(ConnectionError):
        await conversation.run_conversation(generate_demo(1), "http://127.0.0.1:1", "key", tmp_path, screen)
    assert "(1 chunk)" in shown[0] and "(2 chunks)" in shown[1]
