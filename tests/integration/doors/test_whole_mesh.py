"""An agent behind the doors of a mesh in one process: OpenAI's SDK before real services and a scripted provider."""

import asyncio

import openai
import pytest

from bulkhead.runtime.halts.operator import HaltRequest, switch_halt
from bulkhead_contracts import subjects
from bulkhead_contracts.model import ModelCallRequested
from bulkhead_contracts.step import StepAssigned
from bulkhead_contracts.task import TaskStopped
from tests.eventually import until
from tests.integration.doors.whole_mesh import KEY, MODEL, TENANT, whole_mesh
from tests.unit.services.model_gateway.scripted_provider import calls, chunk, says, usage

HELLO = [{"role": "user", "content": "hello"}]
RUN = {"X-Bulkhead-Run": "r1"}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def hangs(*words):
    """Begins to speak, and says no more."""

    async def script(x):
        await x.begin()
        for word in words:
            await x.event(chunk({"content": word}))
        await x.hung_up()

    return script


async def halt(here, task: str, *, active: bool = True) -> None:
    context = here.mesh.context("budget")
    wish = HaltRequest("task", TENANT, task, active, "look at it first", "ann", context.clock())
    await switch_halt(context.bus, context.publisher, wish)


async def test_an_agents_run_is_a_task_that_ends_with_its_last_answer(tmp_path):
    use = calls({"id": "call_1", "name": "weather", "arguments": "{}"})
    async with whole_mesh(tmp_path, use, says("It rains."), idle_s=1.0) as here:
        client = here.client()
        first = await client.chat.completions.with_raw_response.create(
            model="default", messages=HELLO, tools=[WEATHER], temperature=0.5
        )
        task = first.headers["x-bulkhead-task"]
        [call] = first.parse().choices[0].message.tool_calls
        assert (call.function.name, first.parse().choices[0].finish_reason) == ("weather", "tool_calls")
        messages = [
            *HELLO,
            first.parse().choices[0].message,
            {"role": "tool", "tool_call_id": call.id, "content": "rain"},
        ]
        second = await client.chat.completions.with_raw_response.create(
            model="default", messages=messages, tools=[WEATHER]
        )
        assert second.headers["x-bulkhead-task"] == task
        assert second.parse().choices[0].message.content == "It rains."
        sent = here.provider.asked[1].body
        assert [row["role"] for row in sent["messages"]] == ["user", "assistant", "tool"] and sent["tools"] == [WEATHER]
        assert here.provider.asked[0].body["temperature"] == 0.5
        end = await here.ended("succeeded")
        assert await here.mesh.context("gateway").blobs.get_text(TENANT, end.result.content) == "It rains."
        assert (end.usage.model_calls, end.usage.input_tokens, end.usage.output_tokens) == (2, 200, 40)
        assert len(await here.settled()) == 2


async def test_a_run_is_stopped_at_its_ceiling_within_one_call_and_the_sdk_asks_no_more(tmp_path):
    async with whole_mesh(tmp_path, says("a", told=usage(20, 900)), limits={"tokens": 3_000}) as here:
        client, answered = here.client(), 0
        with pytest.raises(openai.PermissionDeniedError) as refused:
            for number in range(10):
                await client.chat.completions.create(
                    model="default", messages=[{"role": "user", "content": f"q {number}"}], max_tokens=1_000
                )
                answered += 1
        assert refused.value.code == "refused_by_budget" and "3,000 tokens" in str(refused.value)
        assert answered == len(here.provider.asked) == 3, "a fourth does not fit beside what three have used"
        asked = len(await here.bodies(ModelCallRequested, "model_gateway"))
        with pytest.raises(openai.PermissionDeniedError):
            await client.chat.completions.create(model="default", messages=HELLO, max_tokens=1_000)
        assert len(await here.bodies(StepAssigned, "doors")) == 1, "no new run is begun"
        assert len(await here.bodies(ModelCallRequested, "model_gateway")) == asked + 1, "no retry"
        assert True in await here.paused()


async def test_a_call_that_never_fits_is_refused_at_once_and_holds_nothing_back(tmp_path):
    async with whole_mesh(tmp_path, says("a"), limits={"tokens": 3_000}, hold_s=60) as here:
        client = here.client()
        async with asyncio.timeout(20):
            with pytest.raises(openai.PermissionDeniedError) as refused:
                await client.chat.completions.create(model="default", messages=HELLO, max_tokens=4_000)
        assert refused.value.code == "refused_by_budget" and "max_tokens by 1,0" in str(refused.value)
        answer = await client.chat.completions.create(model="default", messages=HELLO, max_tokens=1_000)
        assert answer.choices[0].message.content == "a"
        assert await here.paused() == [] and len(await here.bodies(StepAssigned, "doors")) == 1


async def test_a_stream_is_halted_in_the_middle(tmp_path):
    async with whole_mesh(tmp_path, hangs("Once ", "upon "), says("all is well"), hold_s=0.5) as here:
        client, heard = here.client(), []
        stream = await client.chat.completions.create(model="default", messages=HELLO, stream=True, extra_headers=RUN)
        task = stream.response.headers["x-bulkhead-task"]
        with pytest.raises(openai.APIError) as halted:
            async for row in stream:
                heard.append(row.choices[0].delta.content or "")
                if "".join(heard) == "Once upon ":
                    await halt(here, task)
        assert halted.value.code == "halted" and "look at it first" in str(halted.value)
        assert len(here.provider.asked) == 1
        with pytest.raises(openai.PermissionDeniedError) as held:
            await client.chat.completions.create(model="default", messages=HELLO, extra_headers=RUN)
        assert held.value.code == "halted" and len(here.provider.asked) == 1
        await halt(here, task, active=False)
        answer = await client.chat.completions.create(model="default", messages=HELLO, extra_headers=RUN)
        assert answer.choices[0].message.content == "all is well"
        await until(lambda: here.paused())
        assert (await here.paused())[-1] is False


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_call_whose_client_has_gone_is_cut_at_the_provider_and_made_anew_by_a_retry(tmp_path, streamed):
    cut = asyncio.Event()

    async def hangs_until_cut(x):
        await x.begin()
        await x.event(chunk({"content": "Once "}))
        await x.hung_up()
        cut.set()

    async with whole_mesh(tmp_path, hangs_until_cut, says("Once upon"), abandon_s=0.2) as here:
        client = here.client()
        if streamed:
            stream = await client.chat.completions.create(model="default", messages=HELLO, stream=True)
            await anext(aiter(stream))
            await stream.close()
        else:
            asking = asyncio.create_task(client.chat.completions.create(model="default", messages=HELLO))
            await until(lambda: here.provider.asked)
            asking.cancel()
        async with asyncio.timeout(10):
            await cut.wait()
        await until(lambda: _len(here.settled(), 1))
        assert (await here.settled())[0].failed == "abandoned"
        again = {"x-stainless-retry-count": "1"}
        answer = await client.chat.completions.create(model="default", messages=HELLO, extra_headers=again)
        assert answer.choices[0].message.content == "Once upon" and len(here.provider.asked) == 2
        assert len({row.call_id for row in await here.bodies(ModelCallRequested, "model_gateway")}) == 1


async def test_a_run_that_ends_with_nothing_in_flight_leaves_no_halt_behind(tmp_path):
    async with whole_mesh(tmp_path, says("one"), idle_s=0.5) as here:
        await here.client().chat.completions.create(model="default", messages=HELLO)
        await here.ended("succeeded")
        await until(lambda: _handled(here))
        assert await here.mesh.messages("KV_CONTROL", "$KV.CONTROL.task.>") == []


async def _len(found, wanted: int) -> bool:
    return len(await found) == wanted


async def _handled(here) -> bool:
    return bool(await here.bodies(TaskStopped, "budget"))


async def test_the_models_are_those_of_the_model_gateway(tmp_path):
    async with whole_mesh(tmp_path, says("one")) as here:
        client = here.client()
        names = [row.id async for row in client.models.list()]
        assert "default" in names and MODEL in names
        answer = await client.chat.completions.create(model=names[-1], messages=HELLO)
        assert answer.choices[0].message.content == "one"
        here.mesh.kill_replica("model_gateway")
        assert [row.id async for row in client.models.list()] == names, "kept for a while"
    async with whole_mesh(tmp_path, says("one"), models=("large",)) as here:
        assert [row.id async for row in here.client().models.list()] == ["large"]


async def test_messages_of_a_run_say_who_asked_and_nothing_of_its_text_lies_in_them(tmp_path):
    async with whole_mesh(tmp_path, says("one")) as here:
        words = [
            {"role": "user", "content": "first"},
            {"role": "assistant", "content": "a"},
            {"role": "user", "content": "SECRET"},
        ]
        await here.client().chat.completions.create(model="default", messages=words)
        stored = [one for one in await here.mesh.messages("JOURNAL") if b"SECRET" in one.body]
        assert stored == [] and await here.mesh.messages(subjects.BLOBS_STREAM, "blob.doors.>")
        assert KEY.encode() not in b"".join(one.body for one in await here.mesh.messages("JOURNAL"))
