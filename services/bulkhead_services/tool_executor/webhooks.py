"""Tenants' webhooks: events, notices and approvals in, one signed POST out of each, until somebody took it.

At least once: what was taken and not acknowledged to the broker is posted again, under the same id. A receiver that is
down holds up nobody: a notice goes back to the inbox between tries, and only so many of a tenant may wait there.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from bulkhead.runtime.edge.protocol import Received
from bulkhead.runtime.errors import HandBack
from bulkhead.telemetry import metrics, names
from bulkhead.telemetry.log import Log
from bulkhead.tools.api import Response, Unanswered
from bulkhead_services.tool_executor import webhook_payload
from bulkhead_services.tool_executor.addresses import first_inside
from bulkhead_services.tool_executor.settings import Settings, Webhook
from bulkhead_services.tool_executor.webhook_payload import Posting

log = Log("webhooks")

TRY_S = 10.0
"""For names, connection and answer together."""
MAX_ANSWER_BYTES = 1_024
AT_ONCE = 4
"""Posts of one tenant under way at a time, of a replica; all calls of tools share its slots."""
BUSY_MS = 1_000
MAX_WAITING = 128
MAX_WAITING_IN_ALL = 1_024
"""Notices between tries, of a replica: each keeps a place in the window of the inbox, which the calls of tools need."""
SEEN_ELSEWHERE_MS = 60_000
MIN_SECRET_BYTES = 16


class Wire(Protocol):
    """How it goes out; effects.Workbench."""

    async def resolve(self, host: str, port: int) -> tuple[str, ...]:
        """IP addresses of a host."""
        ...

    async def post_to(
        self, url: str, address: str, body: bytes, headers: dict[str, str], max_bytes: int
    ) -> Response | Unanswered:
        """POST to this very address."""
        ...


class Refused(Exception):
    """Not to be tried again; the message says why."""


class Missed(Exception):
    """Not taken this time; the message says why."""


class Webhooks:
    """The notices of all tenants that have a webhook. `clock` is Unix milliseconds."""

    def __init__(self, settings: Settings, wire: Wire, clock: Callable[[], int]) -> None:
        self._hooks, self._events = settings.webhooks, settings.webhook_events
        self._private = {one.lower() for one in settings.webhook_private_hosts}
        self._wire, self._clock = wire, clock
        self._waiting: dict[tuple[str, int], int] = {}
        self._posting: dict[str, int] = {}

    async def take(self, message: Received) -> None:
        """Post it, or say why never. Raises HandBack: it comes again."""
        asked = webhook_payload.posting_of(message.tenant, message.task, message.body)
        hook = self._hooks.get(message.tenant)
        if hook is None or asked.same_as in self._events.get(message.tenant, ()):
            return
        self._waiting.pop((message.tenant, message.sequence), None)
        if self._posting.get(message.tenant, 0) >= AT_ONCE:
            self._put_off(message, asked, BUSY_MS, "others of the tenant are under way")
            return
        self._posting[message.tenant] = self._posting.get(message.tenant, 0) + 1
        try:
            async with asyncio.timeout(TRY_S):
                status = await self._post(hook, message, asked)
        except Refused as refusal:
            self._give_up(message, asked, str(refusal))
        except (Missed, TimeoutError) as error:
            reason = str(error) or f"no answer within {TRY_S:.0f} s"
            wait_ms = webhook_payload.again_after(self._clock() - message.time_unix_ms)
            if not wait_ms:
                self._give_up(message, asked, f"nobody took it for a day; at last: {reason}")
                return
            self._put_off(message, asked, wait_ms, reason)
        else:
            _count("delivered")
            log.info("webhook_delivered", notice=asked.event_id, tenant=message.tenant, status=status)
        finally:
            self._posting[message.tenant] -= 1
            if not self._posting[message.tenant]:
                del self._posting[message.tenant]

    async def _post(self, hook: Webhook, message: Received, asked: Posting) -> int:
        parts = urlsplit(hook.url)
        host = (parts.hostname or "").rstrip(".").lower()
        port = parts.port or (443 if parts.scheme == "https" else 80)
        private = host in self._private or f"{host}:{port}" in self._private
        if parts.scheme != "https" and not private:
            raise Refused(
                f"{host} is not reached by https; give its https URL, or name it in BULKHEAD_WEBHOOK_PRIVATE_HOSTS"
            )
        secret = _secret(hook)
        addresses = await self._wire.resolve(host, port)
        if not addresses:
            raise Missed(f"{host} has no address")
        if not private and (inside := first_inside(addresses)):
            raise Refused(
                f"{host} resolves to {inside}, which is not public; an operator must allow it by "
                "BULKHEAD_WEBHOOK_PRIVATE_HOSTS"
            )
        headers = webhook_payload.headers_of(asked, secret, self._clock())
        answer = await self._wire.post_to(hook.url, addresses[0], asked.body, headers, MAX_ANSWER_BYTES)
        if isinstance(answer, Unanswered):
            raise Missed(f"no answer from {host}: {answer.reason}")
        if answer.status == webhook_payload.GONE:
            raise Refused(f"{host} answered {answer.status}: it wants no more; remove the tenant's webhook")
        if not 200 <= answer.status < 300:
            raise Missed(f"{host} answered {answer.status}")
        return answer.status

    def _put_off(self, message: Received, asked: Posting, wait_ms: int, reason: str) -> None:
        """Raises HandBack; gives up where too many wait already."""
        now = self._clock()
        # A notice that another replica took does not come back here.
        self._waiting = {key: due for key, due in self._waiting.items() if due + SEEN_ELSEWHERE_MS > now}
        of_tenant = sum(1 for tenant, _ in self._waiting if tenant == message.tenant)
        if of_tenant >= MAX_WAITING or len(self._waiting) >= MAX_WAITING_IN_ALL:
            self._give_up(message, asked, f"{of_tenant} of the tenant's wait already; {reason}")
            return
        self._waiting[(message.tenant, message.sequence)] = now + wait_ms
        _count("again")
        log.warning("webhook_again", notice=asked.event_id, tenant=message.tenant, after_ms=wait_ms, reason=reason)
        raise HandBack(wait_ms / 1000, reason)

    @staticmethod
    def _give_up(message: Received, asked: Posting, reason: str) -> None:
        _count("given_up")
        tenant, task = message.tenant, message.task
        log.error("webhook_given_up", notice=asked.event_id, tenant=tenant, task=task, what=asked.what, reason=reason)


def _secret(hook: Webhook) -> bytes:
    """Read at each try, so that a changed one counts at once. Raises Missed; what is in it is said nowhere."""
    try:
        found = Path(hook.secret_file).read_bytes().strip()
    except OSError as error:
        raise Missed(f"the secret cannot be read: {error.strerror} ({hook.secret_file})") from None
    if len(found) < MIN_SECRET_BYTES:
        raise Missed(f"the secret in {hook.secret_file} has less than {MIN_SECRET_BYTES} bytes")
    return found


def _count(outcome: str) -> None:
    metrics.webhooks.add(1, {names.OUTCOME: outcome})
