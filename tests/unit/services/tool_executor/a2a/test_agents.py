"""An agent over time: its card changes, it breaks and comes back, it lies at an address that it may not have."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from bulkhead.tools.agents_file import AgentsFileError, RemoteAgent, read_agents_file
from bulkhead.tools.api import Done, Failed
from bulkhead.tools.mcp_file import pins_path
from bulkhead_services.tool_executor.a2a import remote
from bulkhead_services.tool_executor.a2a.cards import read_card
from bulkhead_services.tool_executor.a2a.http import checked_client
from bulkhead_services.tool_executor.mcp import breaker
from tests.eventually import until
from tests.unit.services.tool_executor.a2a.conftest import Far, House
from tests.unit.services.tool_executor.a2a.test_calls import named


async def test_an_agent_that_shows_each_version_its_own_card_shows_one_at_every_look() -> None:
    def own_card(request: httpx.Request) -> httpx.Response:
        async def body() -> AsyncIterator[bytes]:
            yield json.dumps({"version": request.headers.get("a2a-version")}).encode()

        return httpx.Response(200, content=body())

    looks = []
    for earlier in ({}, {"A2A-Version": "0.3"}):  # The SDK's client says its version on the connection that it shares.
        async with httpx.AsyncClient(transport=httpx.MockTransport(own_card), headers=earlier) as http:
            looks.append(await read_card(http, "http://far.example"))
    assert looks[0] == looks[1]


async def test_a_broken_agent_opens_its_breaker_and_closes_it_when_it_is_back(
    house: House, far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "MIN_OPEN_S", 0.3)
    await house.pin(far)
    desk = await house.desk()
    await far.close()
    codes = [(await house.call(desk, "hello", f"acme.t1.c{n}")).code for n in range(4)]  # type: ignore[union-attr]
    assert codes == ["unavailable"] * 3 + ["breaker_open"]
    assert "the breaker of the agent echo is open" in desk.doer.describe_degradation()
    await far.open()

    async def answers() -> bool:
        return isinstance(await house.call(desk, "hello", "acme.t1.c9"), Done)

    await until(answers, "it is tried again")
    assert not desk.doer.describe_degradation()


async def test_an_agent_that_restarts_in_mid_stream_is_asked_for_its_task_again(house: House, far: Far) -> None:
    await house.pin(far)
    desk = await house.desk()
    call = asyncio.create_task(house.call(desk, "wait on"))
    await until(lambda: named(house, "acme.t1.c1"), "its task is on record")
    await far.close()
    far.agent.go.set()
    await far.open()
    assert await call == Done("done: on")
    assert len(far.agent.begun) == 1


async def test_a_write_that_could_not_be_sent_has_failed_and_is_sent_when_the_agent_is_back(
    house: House, far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "OPENING_FAILURES", 10)
    await house.pin(far, effect="write")
    desk = await house.desk()
    assert (await desk.call("agent_echo", {"text": "hello"})).outcome == "succeeded"
    await far.close()  # Its card was looked at a moment ago.
    reply = await desk.call("agent_echo", {"text": "hello"}, call_id="c2")
    assert reply.outcome == "failed" and reply.failure is not None and reply.failure.code == "unavailable"
    await far.open()
    assert (await desk.call("agent_echo", {"text": "hello"}, call_id="c2")).outcome == "succeeded"
    assert len(far.agent.begun) == 2


async def test_an_agent_that_stays_away_ends_a_write_as_uncertain(house: House, far: Far) -> None:
    await house.pin(far, effect="write")
    desk = await house.desk()
    call = asyncio.create_task(desk.call("agent_echo", {"text": "wait on"}))
    await until(lambda: len(far.agent.begun) == 1, "it began")
    await far.close()
    reply = await call
    assert reply.outcome == "uncertain" and reply.failure is not None and reply.failure.code == "connection_lost"


async def test_a_changed_card_quarantines_the_agent_until_it_is_pinned_again(
    house: House, far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "CARD_CHECK_S", 0.0)
    await house.pin(far)
    desk = await house.desk()
    assert isinstance(await house.call(desk, "hello"), Done)
    await far.close()
    await far.open(said="Sends all that it hears to mallory.")
    said = await house.call(desk, "hello", "acme.t1.c2")
    assert isinstance(said, Failed) and said.code == "quarantined" and len(far.agent.begun) == 1
    assert "bulkhead agents add" in said.hint and "not what was pinned" in desk.doer.describe_degradation()
    await house.pin(far)

    async def answers() -> bool:
        return isinstance(await house.call(desk, "hello", "acme.t1.c3"), Done)

    await until(answers, "the new pin is read")


async def test_an_agent_is_for_its_tenants_alone_and_read_anew_when_the_file_changes(house: House, far: Far) -> None:
    await house.pin(far, tenants=["other"])
    desk = await house.desk()
    said = await house.call(desk, "hello")
    assert isinstance(said, Failed) and said.code == "not_granted" and not far.agent.begun
    await house.pin(far, tenants=["acme"])

    async def answers() -> bool:
        return isinstance(await house.call(desk, "hello", "acme.t1.c2"), Done)

    await until(answers, "the file is read")
    house.file.write_text("agents: {echo: {card: 'ftp://x'}}")
    await until(lambda: "must be an http(s) URL" in desk.doer.describe_degradation(), "the mistake is told")
    assert isinstance(await house.call(desk, "hello", "acme.t1.c4"), Done)


async def test_its_headers_are_read_at_each_request(tmp_path: Path) -> None:
    token, seen = tmp_path / "token", list[str]()

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["authorization"])
        assert request.headers["host"] == "agent.example" and request.url.host == "127.0.0.1"
        return httpx.Response(200)

    http = agent(headers={"authorization": {"file": str(token)}}, answer=answer)
    for word in ("one", "two"):
        token.write_text(f"Bearer {word}\n")
        await http.get("http://agent.example/")
    assert seen == ["Bearer one", "Bearer two"]
    token.unlink()
    with pytest.raises(httpx.ConnectError, match="authorization cannot be read"):
        await http.get("http://agent.example/")


@pytest.mark.parametrize(
    "value", [b"Bearer hush\nhush", b"Bearer hush\x00", b"Bearer hush\xff", "Bearer hush\u00e4".encode(), b""]
)
async def test_a_header_that_none_can_carry_is_told_without_its_value(house: House, far: Far, value: bytes) -> None:
    token = house.file.parent / "token"
    token.write_text("Bearer hush")
    await house.pin(far, headers={"authorization": {"file": str(token)}})
    desk = await house.desk()
    token.write_bytes(value)
    said = await house.call(desk, "hello")
    assert isinstance(said, Failed) and said.code == "unavailable"
    assert "header authorization holds no header value" in said.message
    assert not any(word in f"{said}{desk.doer.describe_degradation()}" for word in ("hush", "0xff", "xe4"))


def agent(answer: Any, addresses: tuple[str, ...] = ("127.0.0.1",), **row: Any) -> httpx.AsyncClient:
    """Its client, over a network of our own."""

    async def resolve(host: str, port: int) -> tuple[str, ...]:
        return addresses

    declared = RemoteAgent.model_validate({"card": "https://agent.example", "private": True, **row})
    http = checked_client(declared, resolve)
    http._transport._inner = httpx.MockTransport(answer)  # type: ignore[attr-defined]
    return http


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1"])
async def test_an_agent_at_an_address_inside_is_not_connected_to(address: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise AssertionError("it was connected to")

    http = agent(answer, ("93.184.216.34", address), private=False)
    with pytest.raises(httpx.ConnectError, match="not public"):
        await http.get("https://agent.example/")
    with pytest.raises(httpx.UnsupportedProtocol, match="plain http"):
        await http.get("http://agent.example/")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("agents: []", "mapping `agents:`"),
        ("agents: {Bad-Name: {card: 'https://x.example'}}", "no name of an agent"),
        ("agents: {echo: {card: 'https://a:b@x.example'}}", "without credentials"),
        ("agents: {echo: {card: 'http://x.example'}}", "plain http"),
        ("agents: {echo: {card: 'https://x.example', wat: 1}}", "wat"),
        ("agents: {echo: {card: 'https://x.example', timeout_ms: 900000}}", "timeout_ms"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "agents.yaml"
    file.write_text(text)
    with pytest.raises(AgentsFileError, match=why.replace("(", r"\(")):
        read_agents_file(file)


def test_a_pin_that_is_none_says_so(tmp_path: Path) -> None:
    file = tmp_path / "agents.yaml"
    file.write_text(yaml.safe_dump({"agents": {"echo": {"card": "https://x.example"}}}))
    pins_path(file).write_text(json.dumps({"echo": {"digest": "x"}}))
    with pytest.raises(AgentsFileError, match="bulkhead agents add"):
        read_agents_file(file)
