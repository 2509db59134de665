"""Text of a call as it comes: each character once, whole at the end, and never in other words than before."""

import asyncio
import time
from types import SimpleNamespace

import pytest
from pydantic import BaseModel

from bulkhead_contracts.model import REASONING, TEXT, AnswerPart, TextDelta, ToolCall
from bulkhead_contracts.result import Usage
from bulkhead_services.doors.conversations.answer_text import AnswerText
from bulkhead_services.doors.port import DoorRefusal, ModelCallAnswer
from bulkhead_services.model_gateway.live_text import LiveTextPublisher
from tests.eventually import until
from tests.unit.services.doors.doors_world import Models, caller, world

pytestmark = pytest.mark.virtual_time


def spoken(*pieces, text=""):
    """A script that says pieces live, as (offset, text), waits, and answers."""
    go = asyncio.Event()

    async def script(models: Models, message, request):
        for offset, piece in pieces:
            await models.say(message, request, piece, offset)
        await go.wait()
        return await models.answer(message, request, text)

    return script, go


async def told(call, pieces: list[str]) -> None:
    async for piece in call.follow_pieces():
        assert piece.part == TEXT
        pieces.append(piece.text)


@pytest.mark.parametrize(
    ("pieces", "text", "before"),
    [
        (((0, "one "), (4, "two ")), "one two three", "one two "),
        (((0, "one "), (4, "two "), (4, "two ")), "one two three", "one two "),
        (((0, "one "), (9, "late")), "one two three", "one "),
        (((4, "two"),), "one two", ""),
        (((0, "one "), (0, "one two ")), "one two three", "one two "),
        ((), "", ""),
    ],
    ids=["whole", "repeated", "gap", "began_late", "begun_anew_in_the_same_words", "nothing"],
)
async def test_pieces_joined_are_the_whole_text(pieces, text, before):
    async with world() as here:
        here.models.script, go = spoken(*pieces, text=text)
        call, heard = await here.call(), list[str]()
        following = asyncio.create_task(told(call, heard))
        await until(lambda: "".join(heard) == before and here.models.asked)
        await asyncio.sleep(0.05)
        assert "".join(heard) == before
        go.set()
        await following
        assert "".join(heard) == text == (await call.wait_for_answer()).text


def part_of(call_id: str) -> AnswerPart:
    return AnswerPart(kind="call", id=call_id, name="add")


def heard_of(text: AnswerText, *pieces: tuple[AnswerPart, int, str]) -> None:
    for part, offset, piece in pieces:
        said = {"text": piece} if part == TEXT else {"text": "", "part_text": piece}
        text.on_text_delta(TextDelta(call_id="c", offset=offset, part=part, **said))


def answered(text: str, *calls: tuple[str, str]) -> ModelCallAnswer:
    made = tuple(ToolCall(id=call_id, name="add", arguments_json=arguments) for call_id, arguments in calls)
    thoughts = ({"type": "reasoning", "text": "Hm. Yes."},)
    return ModelCallAnswer("c", "m", text, made, "tool_calls", Usage(), 1, thoughts=thoughts)


async def test_parts_beside_the_text_come_live_and_what_was_missed_of_each_from_the_record():
    outcome, said = asyncio.Future[ModelCallAnswer](), list[tuple[str, str]]()
    answer = AnswerText(outcome)
    one, two = part_of("one"), part_of("two")
    heard_of(answer, (REASONING, 0, "Hm. "), (TEXT, 0, "I add"), (one, 0, '{"a"'), (one, 9, "lost"), (TEXT, 5, "."))
    following = asyncio.create_task(anext(answer.follow_pieces()))
    assert await following == (REASONING, "Hm. ")

    async def follow() -> None:
        async for part, text in answer.follow_pieces():
            said.append((part.id or part.kind, text))

    following = asyncio.create_task(follow())
    live = [("reasoning", "Hm. "), ("text", "I add"), ("one", '{"a"'), ("text", ".")]
    await until(lambda: said == live)
    outcome.set_result(answered("I add. Wait.", ("one", '{"a": 1}'), ("two", "")))
    await following
    assert said == [*live, ("reasoning", "Yes."), ("text", " Wait."), ("one", ": 1}"), (two.id, "")]


@pytest.mark.parametrize("calls", [(), (("one", '{"b": 1}'),), (("other", '{"a": 1}'),)])
async def test_a_call_that_was_told_and_is_not_so_in_the_end_ends_in_an_error(calls):
    outcome = asyncio.Future[ModelCallAnswer]()
    answer = AnswerText(outcome)
    heard_of(answer, (part_of("one"), 0, '{"a"'))
    pieces = answer.follow_pieces()
    assert await anext(pieces) == (part_of("one"), '{"a"')
    outcome.set_result(answered("", *calls))
    with pytest.raises(DoorRefusal) as cut:
        await anext(pieces)
    assert cut.value.code == "stream_cut"


async def test_text_that_begins_anew_in_other_words_ends_in_an_error_and_is_there_for_a_retry():
    async with world() as here:
        here.models.script, go = spoken((0, "Once upon "), text="A long time ago")
        call, heard = await here.call(), list[str]()
        following = asyncio.create_task(told(call, heard))
        await until(lambda: heard)
        go.set()
        with pytest.raises(DoorRefusal) as cut:
            await following
        assert (cut.value.status, cut.value.code) == (502, "stream_cut") and "".join(heard) == "Once upon "
        assert await here.answer(by=caller(retry=True)) == "A long time ago" and len(here.models.asked) == 1


async def test_a_stream_that_is_halted_in_the_middle_ends_in_an_error_at_once():
    async with world(hold_s=30) as here:

        async def cut(models: Models, message, request):
            await models.say(message, request, "Once upon ")
            await asyncio.sleep(0.2)
            return models.put_off(request, after_ms=60_000, paused=True, code="halted", reason="ann says stop")

        here.models.script = cut
        call, heard = await here.call(), list[str]()
        with pytest.raises(DoorRefusal) as halted:
            async with asyncio.timeout(5):
                await told(call, heard)
        assert (halted.value.status, halted.value.code, halted.value.retry) == (403, "halted", False)
        assert heard == ["Once upon "] and "ann says stop" in halted.value.message


async def test_two_followers_of_one_call_have_the_whole_text_each():
    async with world() as here:
        here.models.script, go = spoken((0, "one "), text="one two")
        by = caller(idempotency_key="k")
        first, second, heard, later = await here.call(by=by), await here.call(by=by), list[str](), list[str]()
        following = asyncio.create_task(told(first, heard))
        await until(lambda: heard)
        late = asyncio.create_task(told(second, later))
        go.set()
        await asyncio.gather(following, late)
        assert "".join(heard) == "".join(later) == "one two" and len(here.models.asked) == 1


@pytest.mark.slow
async def test_single_letters_are_heard_and_followed_in_time_also_when_they_are_told_again():
    outcome, letters = asyncio.Future[ModelCallAnswer](), 16_000
    answer = AnswerText(outcome)
    one = part_of("one")
    following = asyncio.create_task(anext(pieces := answer.follow_pieces()))
    for part in (one, TEXT):
        heard_of(answer, *((part, place, "a") for place in range(letters)))
    assert await following
    began_s = time.process_time()
    for part in (one, TEXT):
        heard_of(answer, *((part, place, "a") for place in range(letters)))  # Another attempt, in the same words.
    following = asyncio.create_task(collected(pieces))
    for place in range(letters):
        heard_of(answer, (TEXT, place, "b"))  # And one in other words.
        await asyncio.sleep(0)
    assert time.process_time() - began_s < 5
    outcome.set_result(answered("a" * letters, ("one", "a" * letters)))
    assert len(await following) < 10


async def collected(pieces) -> list:
    return [piece async for piece in pieces]


async def test_readers_that_know_no_parts_take_none_for_text():
    class Older(BaseModel):
        """A delta as it was before there were parts."""

        call_id: str
        offset: int
        text: str

    told = list[TextDelta]()

    class Heard:
        async def publish_live(self, job, delta):
            told.append(delta)

    request = SimpleNamespace(stream=True, call_id="c", step_id="s", attempt=1, conversation=object())
    say = LiveTextPublisher(SimpleNamespace(request=request), Heard())
    await say("Sum:")
    await say('{"a": 1}', part_of("one"))
    texts = [Older.model_validate_json(delta.model_dump_json()).text for delta in told]
    assert texts == ["Sum:", ""] and [delta.piece for delta in told] == ["Sum:", '{"a": 1}']
