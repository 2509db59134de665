"""Another login before the token of the present one ends, with nothing lost in between.

In: a connection, its token file. Out: a connection that goes on with a fresh client. The fresh one is logged in and
listens before it takes the place of the one before, which stays until all that was asked over it has been answered.
While nobody can log in, the one before serves on, until its token ends.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from nats import errors
from nats.aio.subscription import Subscription

from bulkhead.bus.jetstream.client import DirectClient, HandleMessage
from bulkhead.bus.jetstream.token_file import TokenFile
from bulkhead.bus.port import BusUnavailable
from bulkhead.telemetry.log import Log

log = Log("bus")

LOOK_EVERY_S = 10.0
LOOKS_PER_LIFE = 50
"""The file is looked at so often in what is left of the token's time, and every LOOK_EVERY_S at least."""
LOGIN_SPREAD = 0.05
"""Of what is left of the token's time: over so much the replicas, whose files are exchanged together, log in."""
RENEW_TIMEOUT_S = 15.0
OLD_CLIENT_LINGER_S = 20.0
"""The client before is kept so long: longer than any question waits for its answer (bounds.py)."""
LATE_SHARE = 0.1
"""Of its whole time: a token with less left has not been exchanged as it should have been."""


Connect = Callable[[DirectClient], Awaitable[None]]
Adopt = Callable[[DirectClient], Awaitable[DirectClient]]


@dataclass(eq=False, slots=True)
class MovingSubscription:
    """A subscription that moves with the connection. taking: what takes messages of a client."""

    registry: "set[MovingSubscription]"
    subject: str
    taking: Callable[[DirectClient], HandleMessage]
    queue: str
    subscription: Subscription | None = None

    async def subscribe_at(self, client: DirectClient) -> Subscription:
        """Its subscription at a client."""
        return await client.listen(self.subject, self.taking(client), self.queue)

    async def stop(self) -> None:
        """Listen no more."""
        self.registry.discard(self)
        subscription, self.subscription = self.subscription, None
        if subscription is not None:
            with suppress(errors.Error, OSError):  # The broker forgets it with the connection.
                await subscription.unsubscribe()


class LoginRenewal:
    """Watches the token file, and renews. connect: connects a client, or raises; adopt: puts it in the
    place of the one before, which it returns."""

    def __init__(self, token: TokenFile, listeners: set[MovingSubscription], connect: Connect, adopt: Adopt) -> None:
        self._token, self._listeners = token, listeners
        self._connect, self._adopt = connect, adopt
        self._watching: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self.count = 0
        self.lasts_s = 0.0

    def start(self) -> None:
        """Watch from now on."""
        self.lasts_s = self._token.left_s()
        self._watching = asyncio.create_task(self._watch_token())
        self._watching.add_done_callback(self._on_watch_ended)

    async def stop(self) -> None:
        """Watch no more, and close the clients before."""
        tasks = [task for task in (self._watching, *self._ending) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _on_watch_ended(self, watching: "asyncio.Task[None]") -> None:
        if not watching.cancelled() and (error := watching.exception()) is not None:
            consequence = (
                "the connection breaks when its token ends, and comes back with the one that the file holds then"
            )
            log.error("renewal_ended", file=self._token.path, error=repr(error), then=consequence)

    async def _watch_token(self) -> None:
        last_problem = ""
        while True:
            left_s = self._token.left_s()
            await asyncio.sleep(min(LOOK_EVERY_S, max(0.1, left_s / LOOKS_PER_LIFE)))
            try:
                another = self._token.read() != self._token.shown
                is_late = left_s <= self.lasts_s * LATE_SHARE
                problem = "the file still holds the token before" if is_late and not another else ""
            except BusUnavailable as error:
                another, problem = False, str(error)
            if another:
                await asyncio.sleep(random.uniform(0, LOGIN_SPREAD * max(0.0, min(left_s, 600.0))))  # noqa: S311
                problem = await self._renew_login()
            if problem and problem != last_problem:
                way = "the connection ends with its token; the kubelet exchanges the file, see the pod's events"
                rounded_s = round(min(left_s, 1e9))
                log.warning("token_not_renewed", file=self._token.path, left_s=rounded_s, reason=problem, hint=way)
            last_problem = problem

    async def _renew_login(self) -> str:
        """Log in anew and move there; why not, or ""."""
        before, fresh = self._token.shown, DirectClient()
        try:
            async with asyncio.timeout(RENEW_TIMEOUT_S):
                await self._connect(fresh)
            await self._move_listeners(fresh)
        except Exception as error:
            # Whatever it is (a TLS handshake alone ends in several ways), the next look tries again.
            with suppress(Exception):
                await fresh.close()
            # What was shown in vain does not count as this connection's.
            self._token.shown = before
            return str(error) or type(error).__name__
        except asyncio.CancelledError:
            await fresh.close()
            raise
        self.count += 1
        self.lasts_s = self._token.left_s()
        log.info("login_renewed", lasts_s=round(min(self.lasts_s, 1e9)), times=self.count)
        return ""

    async def _move_listeners(self, fresh: DirectClient) -> None:
        """All that listens does so at the fresh client first. Of a queue each message comes once whoever listens; what
        is not of one may come twice for a moment."""
        moved = {listener: await listener.subscribe_at(fresh) for listener in list(self._listeners)}
        await fresh.flush(timeout=5)
        previous = await self._adopt(fresh)
        for listener in list(self._listeners):
            if listener not in moved:  # It began at the one before, in between.
                moved[listener] = await listener.subscribe_at(fresh)
        for listener, subscription in moved.items():
            before, listener.subscription = listener.subscription, subscription
            with suppress(errors.Error, OSError):  # The broker forgets it with the connection.
                if listener not in self._listeners:
                    await subscription.unsubscribe()
                if before is not None:
                    # What it has sent there already is heard, too.
                    await before.drain()  # type: ignore[no-untyped-call]
        task = asyncio.create_task(_close_after_linger(previous))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


async def _close_after_linger(client: DirectClient) -> None:
    """Close a client when nothing more is expected from it."""
    try:
        await asyncio.sleep(OLD_CLIENT_LINGER_S)
    finally:
        await client.close()
