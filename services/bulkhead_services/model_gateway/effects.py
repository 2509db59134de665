"""The world of the model gateway: HTTP to providers, blobs, live text. Enters: a body to send. Leaves: an Assembly.

HTTP/1.1 connections of each provider, kept alive. There are no retries here: they stand at one layer only, in
attempts.py.
"""

import asyncio
import ssl
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import repeat
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx

from bulkhead.blobs import BlobCorrupt, BlobMissing
from bulkhead.flow.content import in_list
from bulkhead.model_apis.gaps import Gap
from bulkhead.quotas.token_estimates import family_of
from bulkhead.runtime.doer.protocol import Job, JobContext
from bulkhead.telemetry.log import Log
from bulkhead.telemetry.redaction import REDACTED, without_keys
from bulkhead_contracts import bounds
from bulkhead_contracts.model import ModelCallRequested
from bulkhead_contracts.result import REFERENCES, ContentRef
from bulkhead_services.model_gateway.context.conversation import contents_of, message_count_fault, size_fault
from bulkhead_services.model_gateway.context.render import all_parts
from bulkhead_services.model_gateway.providers import errors
from bulkhead_services.model_gateway.providers.anthropic import added_tokens
from bulkhead_services.model_gateway.providers.assembly import Assembly
from bulkhead_services.model_gateway.providers.fields import short_text
from bulkhead_services.model_gateway.providers.forms import FORMS, Api, key_setting_name
from bulkhead_services.model_gateway.providers.narrowing import (
    UnsupportedInput,
    check_reasoning_summary,
    in_chat_form,
    narrow_chat,
)
from bulkhead_services.model_gateway.providers.port import (
    SHORT_DEADLINE,
    Chat,
    GenerationProgress,
    ModelAnswer,
    OnText,
    ProviderFault,
    ProviderRequest,
    call_ids,
    is_embedding,
)
from bulkhead_services.model_gateway.providers.sockets import DirectTransport
from bulkhead_services.model_gateway.providers.sse import ProviderEventTooLarge, SseDecoder
from bulkhead_services.model_gateway.routing.deployments import Deployment, Deployments, OnHeaders, loop_time_s
from bulkhead_services.model_gateway.routing.options import OPENAI_APIS, EndpointTarget, ProviderSettings

log = Log("model_gateway")

KEEPALIVE_S = 4.0
"""Below the 5 s after which common servers close an idle connection: a close that crosses a request costs a call."""
DRAIN_S = 0.2
"""Wait for the end of a body after the last event, so that the connection can be used again."""
_BREAKS = ("timeout", "truncated_stream", SHORT_DEADLINE)
OnChunk = Callable[[], Awaitable[None]]
"""Called when more of an answer has come."""


@dataclass(frozen=True, slots=True)
class Network:
    """Network settings; times in seconds."""

    connect_timeout_s: float = 5.0
    stall_timeout_s: float = 30.0
    proxy: str = ""
    ca_file: Path | None = None
    transport: httpx.AsyncBaseTransport | None = None


def make_transport(concurrency: int, network: Network) -> httpx.AsyncBaseTransport:
    """The connections of one key at one address; they come with the first call."""
    if network.transport is not None:
        return network.transport
    verify = ssl.create_default_context(cafile=network.ca_file) if network.ca_file else True
    limits = httpx.Limits(
        max_connections=concurrency, max_keepalive_connections=concurrency, keepalive_expiry=KEEPALIVE_S
    )
    if network.proxy:
        return httpx.AsyncHTTPTransport(verify=verify, trust_env=False, limits=limits, proxy=network.proxy)
    return DirectTransport(verify, limits)


def build_headers(api: Api, target: EndpointTarget) -> dict[str, str]:
    """Headers of every request to one address; a login in it is sent as such."""
    address = urlsplit(target.base_url)
    login = f"{unquote(address.username or '')}:{unquote(address.password or '')}"
    return {
        "accept": "*/*",
        "content-type": "application/json",
        **FORMS[api].build_headers(target.api_key.get_secret_value() or "local"),
        # Identity: a compressed stream is buffered on its way, and a small body can unfold into a huge one.
        "accept-encoding": "identity",
        "user-agent": "bulkhead",
        **({"authorization": f"Basic {b64encode(login.encode()).decode()}"} if login != ":" else {}),
    }


@lru_cache(maxsize=256)
def _url_of(base_url: str, path: str) -> httpx.URL:
    return httpx.URL(f"{base_url.rstrip('/')}/{path}")


class HttpEndpoint:
    """One key at one address: its connections, and the wire form that it speaks. concurrency: calls at once."""

    def __init__(self, name: str, api: Api, target: EndpointTarget, concurrency: int, network: Network) -> None:
        self.name, self._target, self._concurrency, self._network = name, target, concurrency, network
        self._api, self._form = api, FORMS[api]
        self._transport: httpx.AsyncBaseTransport | None = None
        self._headers = httpx.Headers(build_headers(api, target))

    def open(self) -> None:
        """Make the transport; connections come with the first call."""
        self._transport = make_transport(self._concurrency, self._network)

    async def close(self) -> None:
        """Close every connection."""
        if self._transport is not None:
            await self._transport.aclose()
            self._transport = None

    async def call(
        self,
        outgoing: ProviderRequest,
        on_text: OnText,
        on_headers: OnHeaders,
        *,
        timeout_s: float,
        progress: GenerationProgress | None = None,
    ) -> ModelAnswer | ProviderFault:
        """Send one call; a ProviderFault when HTTP failed, or when what it brought is no answer."""
        assembly, progress, now_s = (
            self._form.assembly_type(outgoing),
            progress or GenerationProgress(),
            asyncio.get_running_loop().time,
        )
        progress.began_s = now_s()
        begun = False

        async def on_chunk() -> None:
            nonlocal begun
            progress.note_progress(assembly.generated_bytes, now_s(), assembly.told_usage)
            for part, text in assembly.drain_pieces():
                begun = True
                await on_text(text, part)
            if assembly.has_begun and not begun:
                begun = True  # A tool call shows that too, also where it is not told live.
                await on_text("")

        fault = await self._stream_call(outgoing, assembly, on_chunk, on_headers, timeout_s)
        progress.note_progress(assembly.generated_bytes, now_s(), assembly.told_usage)
        progress.is_told_at_end = assembly.is_told_at_end
        if fault is None or (fault.code in _BREAKS and assembly.has_ended):
            # Past its end an answer is whole, whatever becomes of its connection.
            result = assembly.result()
            if isinstance(result, ModelAnswer):
                return result
            fault = result
        # The code alone: providers quote prompts in their messages.
        log.warning("provider_call_failed", provider=self.name, code=fault.code)
        return replace(fault, message=self.scrub_keys(fault.message), usage=assembly.usage)

    async def _stream_call(
        self, outgoing: ProviderRequest, assembly: Assembly, on_chunk: OnChunk, on_headers: OnHeaders, timeout_s: float
    ) -> ProviderFault | None:
        assert self._transport is not None, "open() comes first"
        started = False
        quiet_s = min(self._network.stall_timeout_s, timeout_s)
        timeouts = dict.fromkeys(("read", "write", "pool"), quiet_s)
        timeouts["connect"] = min(self._network.connect_timeout_s, timeout_s)
        try:
            request = httpx.Request(
                "POST",
                _url_of(self._target.base_url, outgoing.path),
                headers={**self._headers, **outgoing.headers} if outgoing.headers else self._headers,
                content=outgoing.body,
                extensions={"timeout": timeouts},
            )
            async with asyncio.timeout(timeout_s):
                # Without httpx's client: it looks for logins, redirects and cookies, of which a provider has none.
                response = await self._transport.handle_async_request(request)
                try:
                    started = True
                    on_headers(dict(response.headers.items()))
                    key = key_setting_name(self._api, self.name.partition(" #")[0], self._target.base_url)
                    return await _receive_response(response, assembly, on_chunk, key)
                finally:
                    await response.aclose()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            return self._connection_fault(
                "unreachable", f"no connection: {error or type(error).__name__}", consumed=False
            )
        except (TimeoutError, httpx.TimeoutException) as error:
            # Only silence is the provider's: the end of the time that its asker left says nothing about it.
            if not isinstance(error, httpx.TimeoutException) or timeout_s < self._network.stall_timeout_s:
                return self._short_deadline_fault(timeout_s)
            return self._connection_fault("timeout", f"the provider was silent for {quiet_s:.1f} s")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            code = "truncated_stream" if started else "provider_error"
            return self._connection_fault(code, f"the connection broke: {error or type(error).__name__}")

    def _short_deadline_fault(self, timeout_s: float) -> ProviderFault:
        """The end of a call whose asker left it too little time: nothing is learnt."""
        message = f"{self.name}: no whole answer within {timeout_s:.1f} s, which is all that its time limits left"
        hint = "give the call, or its run or task, a longer deadline, or raise the limit of wall time"
        return ProviderFault(SHORT_DEADLINE, message, hint, retryable=True, outage=True)

    def _connection_fault(self, code: str, message: str, *, consumed: bool = True) -> ProviderFault:
        hint = "is the provider up, and its base URL right?" if code == "unreachable" else ""
        return ProviderFault(code, f"{self.name}: {message}", hint, retryable=True, outage=True, consumed=consumed)

    def scrub_keys(self, text: str) -> str:
        """The text without this endpoint's key, and without anything that looks like one: providers echo keys."""
        key = self._target.api_key.get_secret_value()
        if key:
            text = text.replace(key, REDACTED)
        return without_keys(text)[: bounds.MAX_REASON_CHARS]


class HttpProvider(Deployments):
    """A provider over HTTP, with a deployment for each of its keys and addresses."""

    def __init__(self, name: str, settings: ProviderSettings, network: Network) -> None:
        self.name, self._settings = name, settings
        targets = settings.targets()
        names = [name if len(targets) == 1 else f"{name} #{number}" for number in range(1, len(targets) + 1)]
        concurrency = settings.concurrency
        self._endpoints = [
            HttpEndpoint(*endpoint_fields, concurrency, network)
            for endpoint_fields in zip(names, repeat(settings.api), targets, strict=False)
        ]
        super().__init__([Deployment(endpoint, concurrency, loop_time_s) for endpoint in self._endpoints])

    def open(self) -> None:
        """Make the transports."""
        for endpoint in self._endpoints:
            endpoint.open()

    async def stop(self) -> None:
        """Close every connection."""
        for endpoint in self._endpoints:
            await endpoint.close()

    def build_request(self, chat: Chat) -> ProviderRequest:
        """One call in this provider's wire form."""
        tier = self._settings.tier_of(chat.payload.get("service_tier"))
        chat, gaps = self._translate_chat(chat)
        if tier and self._settings.api in OPENAI_APIS and not is_embedding(chat.payload):
            chat = replace(chat, parameters={**chat.parameters, "service_tier": tier})
        outgoing = FORMS[self._settings.api].build_request(replace(chat, limit_field=self._settings.limit_field))
        is_of_anthropic = self._settings.api == "anthropic" or family_of(chat.model) == "claude"  # Also by a proxy.
        return replace(
            outgoing,
            call_ids=call_ids(chat),
            output_tokens=chat.output_tokens,
            added_tokens=added_tokens(chat.payload) if is_of_anthropic else 0,
            adopted=chat.adopted,
            native=bool(chat.api),
            gaps=(*gaps, *outgoing.gaps),
        )

    def objection(self, chat: Chat) -> str:
        """Part of an outside agent's call that the vendor's API cannot say; "" when it can say all."""
        try:
            self._translate_chat(chat)
        except UnsupportedInput as error:
            return f"provider {self.name} ({self._settings.api}) does not take {error}"
        return ""

    def _translate_chat(self, chat: Chat) -> tuple[Chat, tuple[Gap, ...]]:
        """The chat in words that the form translates, and what it does not say. Raises UnsupportedInput."""
        form = FORMS[self._settings.api]
        if not chat.adopted or (chat.api and chat.api == self._settings.api):
            return chat, ()
        gaps, is_translated = list[Gap](), bool(chat.api)
        if is_translated:
            chat, gaps = in_chat_form(chat)
        if form.is_openai_chat:
            check_reasoning_summary(chat.payload, gaps if is_translated else None)
        elif is_embedding(chat.payload):
            raise UnsupportedInput("embeddings")
        else:
            names = form.parameter_names, form.option_names
            chat = narrow_chat(chat, *names, form.max_temperature, gaps, lenient=is_translated)
        return chat, tuple(gaps)


def _chunks_of(response: httpx.Response) -> httpx.AsyncByteStream:
    """The bytes of the body as they come."""
    assert isinstance(response.stream, httpx.AsyncByteStream)
    return response.stream


async def _receive_response(
    response: httpx.Response, assembly: Assembly, on_chunk: OnChunk, key_setting_name: str
) -> ProviderFault | None:
    if response.status_code != 200:
        is_success, body = response.is_success, bytearray()
        most = bounds.MAX_PROVIDER_RESPONSE_BYTES if is_success else bounds.MAX_PROVIDER_ERROR_BYTES
        async for chunk in _chunks_of(response):
            body += chunk
            if len(body) >= most:
                break
        if is_success:
            assembly.note_body_size(len(body))
        assembly.feed_refusal(bytes(body[:most]))
        body = body[: bounds.MAX_PROVIDER_ERROR_BYTES]
        return errors.fault_of_status(response.status_code, response.headers, bytes(body), key_setting_name)
    if response.headers.get("content-encoding", "identity") not in ("", "identity"):
        return ProviderFault(
            "malformed_json", "the body is compressed, which was not asked for", retryable=True, outage=True
        )
    content_type = response.headers.get("content-type", "")
    if "html" in content_type:
        message = (
            f"status 200 with a page ({short_text(content_type)}) in an answer's place: something stands "
            "before the provider"
        )
        return ProviderFault("malformed_json", message, "check the provider's base URL, and the proxy", True, True)
    if "json" not in content_type:
        return await _receive_stream(response, assembly, on_chunk)
    # Asked for a stream, some servers answer whole all the same.
    whole_body = bytearray()
    async for chunk in _chunks_of(response):
        whole_body += chunk
        if len(whole_body) > bounds.MAX_PROVIDER_RESPONSE_BYTES:
            return _oversize_fault(bounds.MAX_PROVIDER_RESPONSE_BYTES)
        assembly.note_body_size(len(whole_body))
        await on_chunk()
    assembly.feed_body(bytes(whole_body))
    await on_chunk()
    return assembly.fault


async def _receive_stream(response: httpx.Response, assembly: Assembly, on_chunk: OnChunk) -> ProviderFault | None:
    decoder, size = SseDecoder(), 0
    chunks = aiter(_chunks_of(response))
    try:
        async for chunk in chunks:
            size += len(chunk)
            if size > assembly.most_bytes:
                return _oversize_fault(assembly.most_bytes)
            # One delta per chunk of the network: nothing that has arrived waits for what has not.
            _feed_events(decoder.feed(chunk), assembly)
            await on_chunk()
            if assembly.over or assembly.fault:
                break
        else:
            _feed_events(decoder.flush(), assembly)
            await on_chunk()
    except ProviderEventTooLarge as error:
        return ProviderFault("malformed_json", str(error), retryable=True, outage=True)
    if assembly.over:
        try:
            async with asyncio.timeout(DRAIN_S):
                async for chunk in chunks:
                    _feed_events(decoder.feed(chunk), assembly)
        except (TimeoutError, ProviderEventTooLarge):
            pass
    return assembly.fault


def _feed_events(events: Iterable[str], assembly: Assembly) -> None:
    for event in events:
        assembly.feed_event(event)
        if assembly.fault:
            break


def _oversize_fault(most_bytes: int) -> ProviderFault:
    message = f"the response exceeds {most_bytes} bytes"
    return ProviderFault("provider_error", message, "the provider ignores max tokens: use another one")


async def whole_conversation(
    job: Job[ModelCallRequested], hands: JobContext
) -> Job[ModelCallRequested] | ProviderFault:
    """The job with each message of its conversation by its own reference; a ProviderFault where there are too many,
    or too many bytes of them, or a list of them cannot be read.
    """
    conversation = job.request.conversation
    if conversation is None:
        return job

    async def expand_list(ref: ContentRef) -> tuple[ContentRef, ...]:
        return in_list(ref, await hands.blobs.get(job.tenant, ref)) if ref.media_type == REFERENCES else (ref,)

    if (fault := size_fault(conversation)) is not None:
        return fault
    try:
        lists = await asyncio.gather(*map(expand_list, conversation.messages))
    except (BlobMissing, BlobCorrupt, ValueError) as error:
        message = f"the conversation cannot be read: {error}"
        return ProviderFault("content_missing", message, "send it in another run", consumed=False)
    refs = tuple(ref for rows in lists for ref in rows)
    if (fault := message_count_fault(refs)) is not None:
        return fault
    expanded = conversation.model_copy(update={"messages": refs})
    body = job.request.model_copy(update={"conversation": expanded})
    return size_fault(expanded) or replace(job, body=body)


async def read_contents(job: Job[ModelCallRequested], hands: JobContext) -> tuple[dict[str, str], frozenset[str]]:
    """Texts of all contents that the request refers to, by digest, and the digests that cannot be read."""
    request = job.request
    refs = [part.content for part in all_parts(request) if part.content] + [
        turn.content for turn in request.turns if turn.content
    ]
    refs += contents_of(request.conversation) if request.conversation is not None else ()
    texts: dict[str, str] = {}
    missing: set[str] = set()
    unread: list[ContentRef] = []
    for ref in {ref.sha256: ref for ref in refs}.values():
        if (cached := hands.blobs.find_cached(job.tenant, ref)) is None:
            unread.append(ref)
        else:
            texts[ref.sha256] = cached.decode("utf-8", "replace")

    async def read_text(ref: ContentRef) -> None:
        try:
            texts[ref.sha256] = await hands.blobs.get_text(job.tenant, ref)
        except (BlobMissing, BlobCorrupt) as error:
            log.warning("content_unreadable", call=request.call_id, reason=str(error))
            missing.add(ref.sha256)

    await asyncio.gather(*map(read_text, unread))
    return texts, frozenset(missing)
