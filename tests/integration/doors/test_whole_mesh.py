"""An agent behind the doors of a mesh in one process: OpenAI's SDK before real services and a scripted provider."""

import asyncio
import json

import openai
import pytest

from bulkhead.client import Mesh
from bulkhead.runtime.halts.operator import HaltRequest, switch_halt
from bulkhead_contracts import subjects
from bulkhead_contracts.model import ModelCallReplied, ModelCallRequested
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


async def test_a_coding_agents_large_calls_arrive_whole(tmp_path):
    long = "x = 1\n" * 4_000
    files = [json.dumps({"path": f"f{number}.py", "text": long if number == 3 else ""}) for number in range(12)]
    uses = [{"id": f"call_{at}", "name": "weather", "arguments": row} for at, row in enumerate(files)]
    async with whole_mesh(tmp_path, calls(*uses), says("done")) as here:
        client, ask = here.client(), {"model": "default", "input": "write them"}
        async with client.responses.stream(**ask) as events:
            first = await events.get_final_response()
        assert [row.arguments for row in first.output if row.type == "function_call"] == files
        results = [{"type": "function_call_output", "call_id": row["id"], "output": "ok"} for row in uses]
        then = await client.responses.create(model="default", input=results, previous_response_id=first.id)
        assert then.output_text == "done"
        sent = here.provider.asked[1].body["messages"]
        assert [row["function"]["arguments"] for row in sent[1]["tool_calls"]] == files and len(sent) == 14


async def test_a_stream_is_whole(tmp_path):
    async with whole_mesh(tmp_path, says("one two three")) as here:
        stream = await here.client().chat.completions.create(
            model=MODEL, messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        assert "".join(row.choices[0].delta.content or "" for row in chunks if row.choices) == "one two three"
        assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (100, 20)


async def test_arguments_and_thoughts_come_as_the_model_writes_them(tmp_path):
    go = asyncio.Event()

    async def writes(x):
        head = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city"'}}
        await x.begin()
        await x.event(chunk({"reasoning_content": "Rome, then."}))
        await x.event(chunk({"tool_calls": [head]}))
        await go.wait()
        await x.event(chunk({"tool_calls": [{"index": 0, "function": {"arguments": ': "Rome"}'}}]}))
        await x.event(chunk(finish="tool_calls", usage=usage()))
        await x.event("[DONE]")
        await x.end()

    async with whole_mesh(tmp_path, writes) as here:
        stream = await here.client().chat.completions.create(
            model="default", messages=HELLO, tools=[WEATHER], stream=True
        )
        thought, arguments = "", ""
        async with asyncio.timeout(10):
            async for row in stream:
                delta = row.choices[0].delta
                thought += (delta.model_extra or {}).get("reasoning_content", "")
                for call in delta.tool_calls or ():
                    arguments += call.function.arguments
                if arguments == '{"city"':
                    assert thought == "Rome, then."
                    go.set()
        assert json.loads(arguments) == {"city": "Rome"}


async def test_a_response_goes_on_from_the_one_before_it(tmp_path):
    async with whole_mesh(tmp_path, says("one"), says("two"), says("three")) as here:
        client = here.client()
        first = await client.responses.create(model="default", instructions="Be brief.", input="hello")
        async with client.responses.stream(model="default", input="more", previous_response_id=first.id) as stream:
            second = await stream.get_final_response()
        third = await client.responses.create(model="default", input="end", previous_response_id=second.id, store=False)
        assert (first.output_text, second.output_text, third.output_text) == ("one", "two", "three")
        sent = [row["content"] for row in here.provider.asked[2].body["messages"]]
        assert sent == ["hello", "one", "more", "two", "end"]
        assert len(await here.bodies(StepAssigned, "doors")) == 1
        with pytest.raises(openai.NotFoundError) as unknown:
            await client.responses.create(model="default", input="on", previous_response_id=third.id)
        assert unknown.value.code == "previous_response_not_found" and unknown.value.param == "previous_response_id"


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


async def test_many_calls_at_once_do_not_step_over_the_ceiling(tmp_path):
    async with whole_mesh(tmp_path, says("a", told=usage(20, 900)), limits={"tokens": 6_000}) as here:
        client = here.client()

        async def ask(number: int) -> bool:
            try:
                messages = [{"role": "user", "content": f"q {number}"}]
                await client.chat.completions.create(model="default", messages=messages, max_tokens=1_000)
            except openai.PermissionDeniedError:
                return False
            return True

        answers = await asyncio.gather(*(ask(number) for number in range(20)))
        spent = sum(row.usage.input_tokens + row.usage.output_tokens for row in await here.settled())
        assert 0 < sum(answers) < 20 and 920 * sum(answers) <= spent <= 6_000


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


async def test_a_run_that_is_cancelled_refuses_its_callers(tmp_path):
    async with whole_mesh(tmp_path, says("one"), hangs("Once ")) as here:
        client = here.client()
        first = await client.chat.completions.with_raw_response.create(model="default", messages=HELLO)
        task = first.headers["x-bulkhead-task"]
        stream = await client.chat.completions.create(model="default", messages=HELLO, stream=True)
        with pytest.raises(openai.APIError) as cancelled:
            async for row in stream:
                if row.choices[0].delta.content:
                    async with Mesh(here.gateway_url, KEY) as mesh:
                        await mesh.task(task).cancel("no longer wanted")
        assert cancelled.value.code == "cancelled" and "no longer wanted" in str(cancelled.value)
        await here.ended("cancelled")
        with pytest.raises(openai.PermissionDeniedError) as refused:
            await client.chat.completions.create(model="default", messages=HELLO)
        assert refused.value.code == "cancelled" and len(here.provider.asked) == 2


async def test_a_call_in_flight_when_its_caller_ends_the_run_is_cut_and_settled(tmp_path):
    async with whole_mesh(tmp_path, says("one"), hangs("Once ")) as here:
        client = here.client()
        first = await client.chat.completions.with_raw_response.create(model="default", messages=HELLO)
        task = first.headers["x-bulkhead-task"]
        stream = await client.chat.completions.create(model="default", messages=HELLO, stream=True)
        with pytest.raises(openai.APIError) as ended:
            async for row in stream:
                if row.choices[0].delta.content:
                    await client.delete(f"http://127.0.0.1:{here.doors.port}/v1/runs/{task}", cast_to=object)
        assert ended.value.code == "run_ended"
        await until(lambda: _len(here.settled(), 2))
        assert (await here.ended("succeeded")).failure is None
        assert (await here.settled())[-1].usage.cost_usd_micros >= 0


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


async def test_a_stream_whose_reader_comes_back_in_time_goes_on(tmp_path):
    go = asyncio.Event()

    async def slow(x):
        await x.begin()
        await x.event(chunk({"content": "Once "}))
        await go.wait()
        for row in (chunk({"content": "upon"}), chunk(finish="stop"), "[DONE]"):
            await x.event(row)
        await x.end()

    async with whole_mesh(tmp_path, slow, abandon_s=0.5) as here:
        client = here.client()
        stream = await client.chat.completions.create(model="default", messages=HELLO, stream=True)
        await anext(aiter(stream))
        await stream.close()
        again = {"x-stainless-retry-count": "1"}
        waiting = asyncio.create_task(
            client.chat.completions.create(model="default", messages=HELLO, extra_headers=again)
        )
        await asyncio.sleep(1.0)  # Longer than the first reader is waited for.
        go.set()
        assert (await waiting).choices[0].message.content == "Once upon" and len(here.provider.asked) == 1


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


async def test_a_call_waits_while_a_short_halt_stands(tmp_path):
    async with whole_mesh(tmp_path, says("one"), says("two"), hold_s=20) as here:
        client = here.client()
        first = await client.chat.completions.with_raw_response.create(model="default", messages=HELLO)
        await halt(here, task := first.headers["x-bulkhead-task"])
        waiting = asyncio.create_task(client.chat.completions.create(model="default", messages=HELLO))
        await until(lambda: here.paused())
        await halt(here, task, active=False)
        assert (await waiting).choices[0].message.content == "two"


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


async def test_a_model_nobody_serves_and_a_tenant_policy_that_says_no_are_told_by_name(tmp_path):
    async with whole_mesh(tmp_path, says("one")) as here:
        client = here.client()
        with pytest.raises(openai.NotFoundError) as unknown:
            await client.chat.completions.create(model="gpt-nobody", messages=HELLO)
        assert unknown.value.code == "unknown_route" and MODEL in str(unknown.value)
        (tmp_path / "tenants.yaml").write_text("tenants: {demo: {task: {tokens: 9000000}}}")
        with pytest.raises(openai.PermissionDeniedError) as refused:
            await client.chat.completions.create(model="default", messages=HELLO, extra_headers=RUN)
        assert refused.value.code == "limit_above_policy"


async def test_a_retry_after_doors_was_killed_in_mid_call_is_answered_and_paid_once(tmp_path):
    go = asyncio.Event()

    async def slow(x):
        await go.wait()
        await says("one")(x)

    async with whole_mesh(tmp_path, slow) as here:
        cut = asyncio.create_task(here.client(max_retries=0).chat.completions.create(model="default", messages=HELLO))
        await until(lambda: here.provider.asked)
        here.mesh.kill_replica("doors", "0")
        await here.mesh.start("doors", "1")
        await until(lambda: here.doors.port)
        again = here.client(default_headers={"x-stainless-retry-count": "1"})
        waiting = asyncio.create_task(again.chat.completions.create(model="default", messages=HELLO))
        await asyncio.sleep(0.3)
        go.set()
        assert (await waiting).choices[0].message.content == "one"
        assert len(here.provider.asked) == 1 == len(await here.settled())
        cut.cancel()


async def test_a_model_gateway_that_is_killed_in_mid_call_leaves_the_call_to_the_next(tmp_path):
    async with whole_mesh(tmp_path, hangs(), says("one")) as here:
        waiting = asyncio.create_task(here.client().chat.completions.create(model="default", messages=HELLO))
        await until(lambda: here.provider.asked)
        here.mesh.kill_replica("model_gateway")
        await here.mesh.start("model_gateway", "1")
        assert (await waiting).choices[0].message.content == "one"
        assert len(await here.bodies(ModelCallReplied, "doors")) == 1


@pytest.mark.parametrize("away", ["planner", "gateway", "model_gateway", "budget", "signer"])
async def test_a_part_that_is_away_is_waited_for_and_told_as_503(tmp_path, away):
    async with whole_mesh(tmp_path, says("one"), hold_s=0.5, open_wait_s=0.5, call_timeout_s=1.0) as here:
        client = here.client(max_retries=0)
        if away in ("model_gateway", "budget"):
            await client.chat.completions.create(model="default", messages=HELLO)
        here.mesh.kill_replica(away)
        with pytest.raises(openai.InternalServerError) as gone:
            await client.chat.completions.create(model="default", messages=HELLO)
        assert gone.value.status_code == 503 and float(gone.value.response.headers["retry-after"]) > 0


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
