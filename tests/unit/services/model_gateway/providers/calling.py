"""A call of one provider at the scripted one's address, with everything that the network has."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from pydantic import SecretStr

from bulkhead_contracts.model import TEXT, AnswerPart
from bulkhead_services.model_gateway.effects import HttpEndpoint, HttpProvider, Network
from bulkhead_services.model_gateway.providers.forms import Api
from bulkhead_services.model_gateway.providers.port import Chat, ModelAnswer, ProviderFault
from bulkhead_services.model_gateway.providers.sockets import DirectTransport
from bulkhead_services.model_gateway.routing.options import ProviderSettings
from tests.unit.services.model_gateway.providers.dialects import DIALECTS
from tests.unit.services.model_gateway.providers.misbehaviours import EARLIER

KEY = "AIzaSyD-0123456789abcdef0123456789abcde"
_CALL = {"id": EARLIER, "type": "function", "function": {"name": "add", "arguments": "{}"}}
CHAT = Chat(
    "scripted-1",
    {
        "messages": [
            {"role": "system", "content": "You add."},
            {"role": "user", "content": "What is 40 + 2?"},
            {"role": "assistant", "content": None, "tool_calls": [_CALL]},
            {"role": "tool", "tool_call_id": EARLIER, "content": "42"},
        ]
    },
    100,
)
STALL_S, DEADLINE_S = 0.25, 0.8
PATIENT_S = 20.0
"""Where no clock decides: a busy machine changes nothing."""
Call = Callable[..., Awaitable[tuple[ModelAnswer | ProviderFault, list[str]]]]


@asynccontextmanager
async def calling(api: Api, root: str, *, waits: bool = False, connect_s: float = PATIENT_S) -> AsyncIterator[Call]:
    """A function that makes a call (CHAT, or another) and returns what was said, with the pieces heard of it."""
    network = Network(connect_s, STALL_S if waits else PATIENT_S, transport=DirectTransport(verify=False))
    settings = ProviderSettings(api=api, base_url=root + DIALECTS[api].base, api_key=SecretStr(KEY))
    provider = HttpProvider("other", settings, network)
    endpoint = HttpEndpoint("other", api, settings.targets()[0], settings.concurrency, network)
    endpoint.open()

    async def call(chat: Chat = CHAT) -> tuple[ModelAnswer | ProviderFault, list[str]]:
        heard: list[str] = []

        async def on_text(text: str, part: AnswerPart = TEXT) -> None:
            heard.append(text)

        timeout_s = DEADLINE_S if waits else PATIENT_S
        outgoing = provider.build_request(chat)
        return await endpoint.call(outgoing, on_text, lambda headers: None, timeout_s=timeout_s), heard

    try:
        yield call
    finally:
        await endpoint.close()
