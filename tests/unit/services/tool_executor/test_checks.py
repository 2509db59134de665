"""`@tool(check=...)`: what a tool says of a call whose outcome was lost, and what the agent is told then."""

from pathlib import Path

import pytest

from bulkhead.runtime.errors import HandBack
from bulkhead.tools import Call, tool
from bulkhead.tools.catalog import tool_rows
from bulkhead.tools.export import find_declarations, render_tools_file
from bulkhead_services.tool_executor.core import ToolExecutor
from bulkhead_services.tool_executor.effects import ToolRunner
from bulkhead_services.tool_executor.registry import load_registry
from bulkhead_services.tool_executor.settings import Settings
from tests.unit.services.tool_executor.conftest import Desk, open_gate

CODE = '''
from bulkhead.tools import Call, Failed, tool

{kind} made(word: str, call: Call):
    if word == "raises":
        raise OSError("no register")
    return {{"made": True, "unmade": False, "told": f"{{word}} {{call.key}}"}}.get(word)

@tool(effect="write", check=made)
{kind} say(word: str, times: int = 2) -> str | Failed:
    """Say a word."""
    return Failed("lost", "no answer came", "look", effect="unknown")
'''


@pytest.fixture(params=["def", "async def"])
async def saying(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    name = f"checked_{len(request.param)}"
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text(CODE.format(kind=request.param))
    (tmp_path / name / "tools.yaml").write_text(render_tools_file(name, find_declarations(name)))
    for folder in (tmp_path, *tmp_path.parents[:-2]):  # Its process has another user, where the tests are root's.
        folder.chmod(folder.stat().st_mode | 0o055)
    settings = Settings(packs=(name,))
    desk = Desk(ToolExecutor(load_registry((), tool_rows((name,))), ToolRunner(settings), open_gate()))
    yield desk
    await desk.doer.stop()


CLAIMS = (
    ("made", "succeeded", "say was made; what it answered was lost, and its check found it"),
    ("told", "succeeded", "told acme.t1.c1"),
    ("unmade", "failed", "not_made"),
    ("unknown", None, ""),
    ("raises", None, ""),
)


async def test_a_claimed_call_is_told_as_its_check_says(saying: Desk) -> None:
    for word, outcome, said in CLAIMS:
        reply = await saying.doer.resolve_claim(saying.job("say", {"word": word}), saying.hands(), 0)
        assert (reply and reply.outcome) == outcome, word
        if reply is not None:
            assert (reply.failure.code if reply.failure else saying.text(reply)) == said


async def test_what_is_not_there_may_yet_come_while_who_began_it_may_be_at_it(saying: Desk) -> None:
    asked = saying.job("say", {"word": "unmade"}, deadline_ms=600_000)
    with pytest.raises(HandBack, match="may still be at it"):
        await saying.doer.resolve_claim(asked, saying.hands(), saying.now_unix_ms)
    assert await saying.doer.resolve_claim(saying.job("say", {"word": "made"}), saying.hands(), saying.now_unix_ms)


async def test_a_check_takes_a_place(saying: Desk) -> None:
    bench = saying.doer._runner
    for number in range(1_000):
        for places in (bench.process_slots, bench.loop_slots):
            if places.used < places.capacity:
                await places.acquire_slot(f"other{number}", 0)
    saying.doer.drain()
    with pytest.raises(HandBack, match="when there is a place"):
        await saying.doer.resolve_claim(saying.job("say", {"word": "made"}), saying.hands(), 0)


async def test_a_lost_answer_is_looked_for_before_a_person_is_asked(saying: Desk) -> None:
    assert (await saying.call("say", {"word": "made"})).outcome == "succeeded"
    assert (await saying.call("say", {"word": "unmade"})).outcome == "failed"
    assert (await saying.call("say", {"word": "unknown"})).outcome == "uncertain"


def test_a_tool_of_yes_or_no_has_no_check() -> None:
    def sent(word: str) -> bool:
        """Send a word."""
        return True

    with pytest.raises(TypeError, match="could be taken for what the tool returns"):
        tool(effect="write", check=lambda word: None)(sent)


def test_a_check_that_cannot_be_called_is_told() -> None:
    def other(amount: int) -> bool:
        return False

    async def awaited(call: Call) -> bool:
        return False

    def say(word: str) -> str:
        """Say a word."""
        return word

    for check, told in [(other, "takes amount, which is neither"), (awaited, "both `def` or both `async def`")]:
        with pytest.raises(TypeError, match=told):
            tool(effect="write", check=check)(say)
