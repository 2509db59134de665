"""The world of the model gateway: HTTP to providers, blobs, live text. Enters: a body to send. Leaves: an Assembly.

One HTTP/1.1 client per provider, kept alive. There are no retries here: they stand at one layer only, in attempts.py.
"""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx

from bulkhead.blobs import BlobCorrupt, BlobMissing
from bulkhead.bus.port import BusError
from bulkhead.runtime.doer.protocol import Hands, Job
from bulkhead.runtime.errors import Deferred
from bulkhead.runtime.fair_semaphore import FairSemaphore
from bulkhead.telemetry.log import Log
from bulkhead_contracts import bounds
from bulkhead_contracts.model import ModelCallRequested, TextDelta
from bulkhead_contracts.result import ContentRef
from bulkhead_services.model_gateway.providers import errors
from bulkhead_services.model_gateway.providers.assembly import Assembly
from bulkhead_services.model_gateway.providers.forms import FORMS
from bulkhead_services.model_gateway.providers.port import Answer, Chat, Fault, OnText, Outgoing
from bulkhead_services.model_gateway.providers.sse import EventTooLarge, SseDecoder
from bulkhead_services.model_gateway.settings import ProviderSettings

log = Log("model_gateway")

BUSY_AFTER_MS = 500
KEEPALIVE_S = 4.0
"""Below the 5 s after which common servers close an idle connection: a close that crosses a request costs a call."""
DRAIN_S = 0.2
"""Wait for the end of a body after the last event, so that the connection can be used again."""
_KEYS = re.compile(r"(?:sk|pk|rk)-[A-Za-z0-9_*-]{6,}|AIza[A-Za-z0-9_-]{20,}|Bearer\s+\S+|(?<=://)[^/@\s]+@", re.I)


@dataclass(frozen=True, slots=True)
class Network:
    """How providers are reached; times in seconds."""

    connect_timeout_s: float = 5.0
    stall_timeout_s: float = 30.0
    proxy: str = ""
    ca_file: Path | None = None
    transport: httpx.AsyncBaseTransport | None = None


class HttpProvider:
    """An endpoint: its connections, its key, its places, and the wire form that it speaks."""

    def __init__(self, name: str, settings: ProviderSettings, network: Network) -> None:
        self.name, self._settings, self._network = name, settings, network
        self._form = FORMS[settings.api]
        # Long answers that began together end late: an eighth of the places stays free for calls of other tenants.
        self.places = FairSemaphore(settings.concurrency, kept=settings.concurrency // 8)
        self._client: httpx.AsyncClient | None = None

    def open(self) -> None:
        """Make the client; connections come with the first call."""
        key = self._settings.api_key.get_secret_value() or "local"
        size = self._settings.concurrency
        self._client = httpx.AsyncClient(
            base_url=self._settings.base_url.rstrip("/") + "/",
            # Identity: a compressed stream is buffered on its way, and a small body can unfold into a huge one.
            headers={**self._form.headers(key), "accept-encoding": "identity", "user-agent": "bulkhead"},
            limits=httpx.Limits(max_connections=size, max_keepalive_connections=size, keepalive_expiry=KEEPALIVE_S),
            verify=ssl.create_default_context(cafile=self._network.ca_file) if self._network.ca_file else True,
            proxy=self._network.proxy or None,
            transport=self._network.transport,
            trust_env=False,
            follow_redirects=False,
        )

    async def close(self) -> None:
        """Close every connection."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    @asynccontextmanager
    async def place(self, tenant: str, wait_s: float) -> AsyncIterator[None]:
        """One of the provider's places; raises Deferred after `wait_s`, since waiting is never an un-acked message."""
        if not await self.places.enter(tenant, wait_s):
            raise Deferred(BUSY_AFTER_MS, f"every place at {self.name} is taken")
        try:
            yield
        finally:
            self.places.leave(tenant)

    def request(self, chat: Chat) -> Outgoing:
        """One call in this provider's wire form."""
        return self._form.request(replace(chat, limit_field=self._settings.limit_field))

    async def call(self, outgoing: Outgoing, on_text: OnText, *, timeout_s: float) -> Answer | Fault:
        """Send one call; a Fault when HTTP failed, or when what it brought is no answer."""
        assembly = self._form.assembly()
        fault = await self._call(outgoing, assembly, on_text, timeout_s)
        if fault is None:
            said = assembly.result()
            return _told(said, assembly) if isinstance(said, Fault) else said
        # The code alone: providers quote prompts in their messages.
        log.warning("provider_call_failed", provider=self.name, code=fault.code)
        return _told(replace(fault, message=self.scrub(fault.message)), assembly)

    async def _call(self, outgoing: Outgoing, assembly: Assembly, on_text: OnText, timeout_s: float) -> Fault | None:
        assert self._client is not None, "open() comes first"
        started = False
        quiet_s = min(self._network.stall_timeout_s, timeout_s)
        timeout = httpx.Timeout(quiet_s, connect=min(self._network.connect_timeout_s, timeout_s))
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._client.stream(
                    "POST",
                    outgoing.path,
                    content=outgoing.body,
                    headers={"content-type": "application/json"},
                    timeout=timeout,
                ) as response,
            ):
                started = True
                return await _receive(response, assembly, on_text, self._form.key_variable)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            return self._fault("unreachable", f"no connection: {error or type(error).__name__}", consumed=False)
        except TimeoutError:
            return self._fault("timeout", f"no whole answer within {timeout_s:.1f} s")
        except httpx.TimeoutException:
            return self._fault("timeout", f"the provider was silent for {quiet_s:.1f} s")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            code = "truncated_stream" if started else "provider_error"
            return self._fault(code, f"the connection broke: {error or type(error).__name__}")

    def _fault(self, code: str, message: str, *, consumed: bool = True) -> Fault:
        hint = "is the provider up, and its base URL right?" if code == "unreachable" else ""
        return Fault(code, f"{self.name}: {message}", hint, retryable=True, outage=True, consumed=consumed)

    def scrub(self, text: str) -> str:
        """The text without this provider's key, and without anything that looks like one: providers echo keys."""
        key = self._settings.api_key.get_secret_value()
        if key:
            text = text.replace(key, "[redacted]")
        return _KEYS.sub("[redacted]", text)[: bounds.MAX_REASON_CHARS]


def _told(fault: Fault, assembly: Assembly) -> Fault:
    return replace(fault, usage=assembly.usage, cache_write_tokens=assembly.cache_write_tokens)


async def _receive(response: httpx.Response, assembly: Assembly, on_text: OnText, key_variable: str) -> Fault | None:
    if response.status_code != 200:
        body = b""
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) >= bounds.MAX_PROVIDER_ERROR_BYTES:
                break
        body = body[: bounds.MAX_PROVIDER_ERROR_BYTES]
        return errors.of_status(response.status_code, response.headers, body, key_variable)
    if response.headers.get("content-encoding", "identity") not in ("", "identity"):
        return Fault("malformed_json", "the body is compressed, which was not asked for", retryable=True, outage=True)
    kind = response.headers.get("content-type", "")
    if "json" not in kind:
        return await _receive_stream(response, assembly, on_text)
    # Asked for a stream, some servers answer whole all the same.
    whole = bytearray()
    async for chunk in response.aiter_raw():
        whole += chunk
        if len(whole) > bounds.MAX_PROVIDER_RESPONSE_BYTES:
            return _oversize()
    if text := assembly.whole(bytes(whole)):
        await on_text(text)
    return assembly.fault


async def _receive_stream(response: httpx.Response, assembly: Assembly, on_text: OnText) -> Fault | None:
    decoder, size = SseDecoder(), 0
    chunks = response.aiter_raw()
    try:
        async for chunk in chunks:
            size += len(chunk)
            if size > bounds.MAX_PROVIDER_RESPONSE_BYTES:
                return _oversize()
            # One delta per chunk of the network: nothing that has arrived waits for what has not.
            if text := _take(decoder.feed(chunk), assembly):
                await on_text(text)
            if assembly.over or assembly.fault:
                break
        else:
            if text := _take(decoder.flush(), assembly):
                await on_text(text)
    except EventTooLarge as error:
        return Fault("malformed_json", str(error), retryable=True, outage=True)
    if assembly.over:
        try:
            async with asyncio.timeout(DRAIN_S):
                async for _ in chunks:
                    pass
        except TimeoutError:
            pass
    return assembly.fault


def _take(events: Iterable[str], assembly: Assembly) -> str:
    said = []
    for event in events:
        said.append(assembly.event(event))
        if assembly.over or assembly.fault:
            break
    return "".join(said)


def _oversize() -> Fault:
    message = f"the response exceeds {bounds.MAX_PROVIDER_RESPONSE_BYTES} bytes"
    return Fault("provider_error", message, "the provider ignores max tokens: use another one")


class LiveText:
    """Publishes text as it comes; each attempt begins at offset 0 again, which replaces what was shown."""

    def __init__(self, job: Job[ModelCallRequested], hands: Hands) -> None:
        self._job, self._hands = job, hands
        self._offset = 0

    async def __call__(self, text: str) -> None:
        """Publish a piece. Live text is lossy by design: the answer itself does not depend on it."""
        request = self._job.request
        if not request.stream:
            return
        for start in range(0, len(text), bounds.MAX_ANSWER_CHARS):
            piece = text[start : start + bounds.MAX_ANSWER_CHARS]
            call_id, step_id, attempt = request.call_id, request.step_id, request.attempt
            delta = TextDelta(call_id=call_id, step_id=step_id, attempt=attempt, offset=self._offset, text=piece)
            self._offset += len(piece)
            try:
                await self._hands.live(self._job, delta)
            except BusError as error:
                log.debug("live_text_lost", call=request.call_id, reason=str(error))


async def read_contents(job: Job[ModelCallRequested], hands: Hands) -> tuple[dict[str, str], frozenset[str]]:
    """Texts of all contents that the request refers to, by digest, and the digests that cannot be read."""
    request = job.request
    parts = [*request.parts, *(part for turn in request.turns for one in turn.answers for part in one.parts)]
    refs = [part.content for part in parts if part.content] + [one.content for one in request.turns if one.content]
    texts: dict[str, str] = {}
    missing: set[str] = set()

    async def read(ref: ContentRef) -> None:
        try:
            texts[ref.sha256] = await hands.blobs.text(job.tenant, ref)
        except (BlobMissing, BlobCorrupt) as error:
            log.warning("content_unreadable", call=request.call_id, reason=str(error))
            missing.add(ref.sha256)

    await asyncio.gather(*(read(ref) for ref in {one.sha256: one for one in refs}.values()))
    return texts, frozenset(missing)
