"""Every misbehaviour of a provider in every wire form, over a real socket: its name, its charge, its next attempt."""

import asyncio
import json
import socket

import pytest

from bulkhead_services.model_gateway.providers import errors
from bulkhead_services.model_gateway.providers.forms import FORMS
from bulkhead_services.model_gateway.providers.port import ModelAnswer, ProviderFault
from tests.unit.services.model_gateway.providers import misbehaviours
from tests.unit.services.model_gateway.providers.calling import KEY, calling
from tests.unit.services.model_gateway.providers.dialects import DIALECTS, Said
from tests.unit.services.model_gateway.scripted_provider import ScriptedProvider

JUNK = (None, -1, 10**30, 1.5, True, "x", "\ud800", [], {}, [None], {"text": 1}, [[{}]])


@pytest.mark.parametrize(
    ("api", "case"), [*misbehaviours.rows()], ids=lambda value: value if isinstance(value, str) else value.name
)
async def test_a_misbehaviour_has_its_name_and_its_charge(api, case):
    async with ScriptedProvider() as server, calling(api, server.url.removesuffix("/v1"), waits=case.waits) as call:
        server.will(case.play(DIALECTS[api]))
        said, heard = await call()
    if case.code:
        assert isinstance(said, ProviderFault), said
        assert (said.code, said.retryable, said.retry_after_s) == (case.code, case.retryable, case.wait_s), said
        assert said.message and KEY not in said.message
        assert said.hint or said.retryable, "nobody can do anything, and nothing is tried again"
    else:
        assert isinstance(said, ModelAnswer), said
        assert case.holds(said), said
        assert "".join(heard) == said.text
    assert misbehaviours.owed(said) == case.owed, said


@pytest.mark.parametrize("api", FORMS)
async def test_a_connection_that_is_not_taken_up_is_unreachable(api):
    """The queue of a listening socket is full: what comes then is dropped."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for one in (first, second):
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        await asyncio.sleep(0.01)
        async with calling(api, f"http://127.0.0.1:{full.getsockname()[1]}", connect_s=0.25) as call:
            said, _ = await call()
    assert said.code == "unreachable" and said.retryable and misbehaviours.owed(said) == "nothing"


@pytest.mark.parametrize("api", FORMS)
async def test_a_refused_connection_is_unreachable(api):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        async with calling(api, f"http://127.0.0.1:{free.getsockname()[1]}") as call:
            said, _ = await call()
    assert said.code == "unreachable" and said.retryable and misbehaviours.owed(said) == "nothing"


# Without a socket


SAID = (
    Said("The answer.", thoughts="Hm.", calls=(("c_1", "add", '{"a": 1}'),), end="tool_calls"),
    Said("I cannot.", end="refusal"),
    Said("Half.", end="filter"),
)


def leaves(value, path=()):
    """Every place in a JSON value."""
    yield path
    rows = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, row in rows:
        yield from leaves(row, (*path, key))


def replaced(value, path, junk):
    if not path:
        return junk
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], junk)
    return copy


def is_fit(said):
    """An answer or a fault that can leave the service."""
    if isinstance(said, ModelAnswer):
        json.dumps([call.model_dump() for call in said.calls]).encode()
        said.text.encode()
        assert said.usage is None or said.usage.input_tokens > 0
    assert isinstance(said, ModelAnswer) or (said.message and said.code and said.message.encode())


@pytest.mark.parametrize("api", FORMS)
def test_nothing_raises_whatever_stands_where(api):
    """Each place of each event, and of each whole body, is each kind of junk once."""
    events = DIALECTS[api].stream(SAID[0])
    for number, event in enumerate(events):
        for path in leaves(event):
            for junk in JUNK:
                assembly = FORMS[api].assembly_type()
                for row in (*events[:number], replaced(event, path, junk), *events[number + 1 :]):
                    if not (assembly.over or assembly.fault):
                        assembly.feed_event(json.dumps(row))
                is_fit(assembly.result())
    for told in SAID:
        whole = DIALECTS[api].whole(told)
        for path in leaves(whole):
            for junk in JUNK:
                assembly = FORMS[api].assembly_type()
                assembly.feed_body(json.dumps(replaced(whole, path, junk)).encode())
                is_fit(assembly.result())


@pytest.mark.parametrize("api", FORMS)
def test_an_error_may_hold_anything(api):
    for name in ("rate_limit", "overflow", "server"):
        error = DIALECTS[api].error(name)
        for path in leaves(error):
            for junk in (*JUNK, [{"retryDelay": "x"}], [{"retryDelay": 3}]):
                found = replaced(error, path, junk)
                is_fit(errors.fault_of_status(DIALECTS[api].status(name), {}, json.dumps(found).encode()))
                is_fit(errors.fault_in_body(found))
