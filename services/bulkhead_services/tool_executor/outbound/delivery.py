"""One post to a checked address, and the time between tries. Webhooks and push notifications alike.

In: a message of the inbox, and what is to be posted for it. Out: the receiver's status; PostRefused where it
will never be taken; HandBack where it comes again. The inbox is the queue: a receiver that is down holds up
nobody, and only so many messages of a tenant may wait between tries.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.runtime.errors import HandBack
from bulkhead.tools.api import Unanswered
from bulkhead_services.tool_executor.addresses import first_non_public
from bulkhead_services.tool_executor.effects import ToolRunner

TRY_TIMEOUT_S = 10.0
"""For names, connection and answer together."""
MAX_ANSWER_BYTES = 1_024
MAX_POSTS_AT_ONCE = 4
"""Posts of one tenant under way at a time, of a replica; all calls of tools share its slots."""
BUSY_RETRY_MS = 1_000
TAKEN_ELSEWHERE_MS = 60_000
MIN_RETRY_MS = 1_000
MAX_RETRY_MS = 3_600_000
GIVE_UP_MS = 24 * 3_600_000
HTTP_GONE = 410
"""The HTTP status by which a receiver asks for no more."""


class PostRefused(Exception):
    """Not to be tried again; the message says why."""


class PostMissed(Exception):
    """Not taken this time; the message says why."""


class Deliveries:
    """Posts of one kind. max_waiting, max_waiting_in_all: messages of a tenant, and of all, between tries: each keeps a
    place in the window of the inbox, which the calls of tools need. clock: Unix milliseconds."""

    def __init__(
        self, runner: ToolRunner, clock: Callable[[], int], *, max_waiting: int, max_waiting_in_all: int
    ) -> None:
        self._runner, self._clock, self._max_waiting, self._max_waiting_in_all = (
            runner,
            clock,
            max_waiting,
            max_waiting_in_all,
        )
        self._waiting: dict[tuple[str, int], int] = {}
        self._posting: dict[str, int] = {}

    async def try_delivery(
        self,
        message: ReceivedMessage,
        post: Callable[[], Coroutine[Any, Any, int]],
        on_retry: Callable[[int, str], None],
    ) -> int:
        """The status that the work ended with, within its time and its tenant's share. on_retry: told the wait in
        milliseconds and why, where it comes again. Raises PostRefused, HandBack."""
        tenant = message.tenant
        self._waiting.pop((tenant, message.sequence), None)
        if self._posting.get(tenant, 0) >= MAX_POSTS_AT_ONCE:
            raise self._schedule_retry(message, BUSY_RETRY_MS, "others of the tenant are under way", on_retry)
        self._posting[tenant] = self._posting.get(tenant, 0) + 1
        try:
            async with asyncio.timeout(TRY_TIMEOUT_S):
                return await post()
        except (PostMissed, TimeoutError) as error:
            reason = str(error) or f"no answer within {TRY_TIMEOUT_S:.0f} s"
            wait_ms = retry_wait_ms(self._clock() - message.time_unix_ms)
            if not wait_ms:
                raise PostRefused(f"nobody took it for a day; at last: {reason}") from error
            raise self._schedule_retry(message, wait_ms, reason, on_retry) from error
        finally:
            self._posting[tenant] -= 1
            if not self._posting[tenant]:
                del self._posting[tenant]

    async def post_once(
        self,
        url: str,
        host: str,
        port: int,
        body: bytes,
        headers: Mapping[str, str],
        *,
        private_allowed: bool,
        allow_setting: str,
    ) -> int:
        """One try. private_allowed: whether addresses may be other than public; allow_setting: what allows that.
        Raises PostRefused, PostMissed."""
        addresses = await self._runner.resolve(host, port)
        if not addresses:
            raise PostMissed(f"{host} has no address")
        if not private_allowed and (non_public := first_non_public(addresses)):
            raise PostRefused(
                f"{host} resolves to {non_public}, which is not public; an operator must allow it by {allow_setting}"
            )
        answer = await self._runner.post_to(url, addresses[0], body, headers, MAX_ANSWER_BYTES)
        if isinstance(answer, Unanswered):
            raise PostMissed(f"no answer from {host}: {answer.reason}")
        if answer.status == HTTP_GONE:
            raise PostRefused(f"{host} answered {answer.status}: it wants no more")
        if not 200 <= answer.status < 300:
            raise PostMissed(f"{host} answered {answer.status}")
        return answer.status

    def _schedule_retry(
        self, message: ReceivedMessage, wait_ms: int, reason: str, on_retry: Callable[[int, str], None]
    ) -> HandBack:
        """To be raised. Raises PostRefused where too many wait already."""
        now_ms = self._clock()
        # A message that another replica took does not come back here.
        self._waiting = {key: due for key, due in self._waiting.items() if due + TAKEN_ELSEWHERE_MS > now_ms}
        tenant_waiting = sum(1 for tenant, _ in self._waiting if tenant == message.tenant)
        if tenant_waiting >= self._max_waiting or len(self._waiting) >= self._max_waiting_in_all:
            raise PostRefused(f"{tenant_waiting} of the tenant's wait already; {reason}")
        self._waiting[(message.tenant, message.sequence)] = now_ms + wait_ms
        on_retry(wait_ms, reason)
        return HandBack(wait_ms / 1000, reason)


def retry_wait_ms(age_ms: int) -> int:
    """Wait before the next try: as long as it has waited already, from a second to an hour; 0 after a day: given up.

    It depends on the age alone: neither a restart nor another replica begins anew.
    """
    wait = min(max(age_ms, MIN_RETRY_MS), MAX_RETRY_MS)
    return wait if age_ms + wait <= GIVE_UP_MS else 0
