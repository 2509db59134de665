"""One connection to the broker that reconnects for ever, and reports the broker's refusals to the caller.

In: address and key, or a token. Out: a connected nats-py client, events of loss and return, and the caller of every
refused publish. nats-py alone shows a refused publish as a timeout: the broker's error names only the subject. With a
token the client is exchanged for another before the token ends (renewal.py).
"""

import asyncio
import logging
import re
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from nats import errors

from bulkhead.bus.jetstream.client import EXPIRED, DirectClient, HandleMessage, header_frame
from bulkhead.bus.jetstream.dns_cache import HostUnknown
from bulkhead.bus.jetstream.renewal import LoginRenewal, MovingSubscription
from bulkhead.bus.jetstream.token_file import TokenFile
from bulkhead.bus.port import BusClosed, BusError, BusUnavailable, PublishRefused
from bulkhead.bus.wire import check_sendable
from bulkhead.telemetry.log import Log

log = Log("bus")

PING_INTERVAL_S = 2.0
MAX_OUTSTANDING_PINGS = 2
"""Unanswered so many, the third is not sent: nobody is there."""
RECONNECT_WAIT_S = 0.2
MAX_KEY_REFUSALS = 10
"""A key that is refused so often in a row is gone for good: the process ends and starts with what is valid now."""
UNKNOWN_HOST_S = 8.0
"""At a start a name that nobody knows for so long is a mistake; a name server that was away for a moment is back."""
CA_FILE = "ca.pem"
"""Beside the keys of a mesh whose broker speaks TLS."""
UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
"""What OpenSSL says of a certificate that the trusted CA has not signed, or for another name."""
_REFUSED = re.compile(r'permissions violation for (publish|subscription)[^"]*"([^"]*)"')

TOKEN_REFUSALS = ("authorization violation", "authentication timeout")
"""What the broker says to whose token it does not take."""
LOGIN_TIMEOUT_S = 6
"""Longer than the broker waits for the identity service (infra/bulkhead_infra/identity/render.py)."""
REFUSED_HINT = (
    "the log of the identity service says why (`login_refused`), unless none runs or is ready; the pod's service "
    "account must be its service's, and the audience of the projected token identity's BULKHEAD_TOKEN_AUDIENCE"
)

Refuse = Callable[[BusError], None]
Notify = Callable[[], None]


class ConnectionLost(BusUnavailable):
    """The connection broke while waiting: the answer will not come."""


class Connection:
    """A nats-py client with its callbacks. `on_lost` and `on_returned` are called synchronously."""

    def __init__(self, url: str, ca_file: Path | None = None, token: TokenFile | None = None) -> None:
        """ca_file: who must have signed the broker's certificate. token: to log in with. Raises BusUnavailable when
        ca_file holds none."""
        self.nc = DirectClient()
        self.url = url
        self._token = token
        self._options: dict[str, Any] = {}
        self.listeners: set[MovingSubscription] = set()
        self.renewal = (
            LoginRenewal(token, self.listeners, self.connect, self.adopt_client) if token is not None else None
        )
        self.on_renewed: set[Notify] = set()
        """Called when another login has taken the place of the one before: what is asked now comes over it."""
        self._tls = tls_context(ca_file) if ca_file is not None else None
        if self._tls is not None:
            # nats-py begins TLS on a stream that began without: asyncio complains of each that ends, of no consequence.
            logging.getLogger("asyncio").addFilter(_of_consequence)
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.on_lost: set[Notify] = set()
        self.on_returned: set[Notify] = set()
        self.connected = False
        """True while the connection stands, as far as is known."""
        self._up = asyncio.Event()
        """Set while the connection stands, and when it is closed for good: nobody waits for it any more."""
        self._waiting: dict[str, dict[Refuse, str]] = {}
        self._key_refusals = 0
        self._unknown: bool | None = None
        """Whether every failure so far was an unknown name; None before the first."""
        self._closing = False
        self._ping: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self.last_error = ""

    async def open(
        self, *, nkey_seed: str | None, inbox_prefix: str, name: str, timeout_s: float, ping_s: float = 0
    ) -> None:
        """Connect. Raises BusUnavailable: after the timeout, at once when one side refuses the other's credentials, and
        after UNKNOWN_HOST_S when the broker's name is unknown. A refused token is tried until the timeout."""
        self._options = {
            "name": name,
            "nkeys_seed_str": nkey_seed,
            "token": self._token.present_token if self._token is not None else None,
            "inbox_prefix": inbox_prefix,
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": RECONNECT_WAIT_S,
            "ping_interval": ping_s or PING_INTERVAL_S,
            "max_outstanding_pings": MAX_OUTSTANDING_PINGS,
            "connect_timeout": 2 if self._token is None else LOGIN_TIMEOUT_S,
            "tls": self._tls,
            # TLS before the first byte: a man in the middle must not strip it.
            "tls_handshake_first": self._tls is not None,
        }
        if self._token is not None:
            self._token.read()
        opening = asyncio.ensure_future(self.connect(self.nc))
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not opening.done() and not self._is_hopeless and loop.time() < began + timeout_s:
            await asyncio.wait({opening}, timeout=0.1)
            if self._unknown and loop.time() > began + UNKNOWN_HOST_S:
                break
        if opening.done() and opening.exception() is None:
            self._unknown, self._key_refusals = None, 0
            self.connected = True
            self._up.set()
            if self.renewal is not None:
                self.renewal.start()
            return
        if opening.done():
            self.last_error = str(opening.exception())
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        self._closing = True
        await self.nc.close()
        raise self._opening_error()

    async def connect(self, nc: DirectClient) -> None:
        """Connect this client, and hear of it for as long as it is `nc`. Which is not so yet is tried once."""
        await nc.connect(
            self.url.split(","),  # Of a cluster, any: the others are heard of from it.
            allow_reconnect=nc is self.nc,
            error_cb=partial(self._call_if_current, nc, self._on_error),
            disconnected_cb=partial(self._call_if_current, nc, self._on_disconnected),
            reconnected_cb=partial(self._call_if_current, nc, self._on_reconnected),
            closed_cb=partial(self._call_if_current, nc, self._on_closed),
            **self._options,
        )

    async def _call_if_current(self, nc: DirectClient, told: Callable[..., Awaitable[None]], *error: Exception) -> None:
        if nc is self.nc:
            await told(*error)

    async def adopt_client(self, nc: DirectClient) -> DirectClient:
        """Go on with another client, which is connected; returns the one before."""
        before, self.nc = self.nc, nc
        before.options["allow_reconnect"], nc.options["allow_reconnect"] = False, True
        self._give_up_ping()
        for notify in list(self.on_renewed):
            notify()
        if not self.connected and not self.closed.done():
            await self._on_reconnected()
        return before

    async def listen(
        self, subject: str, taking: Callable[[DirectClient], HandleMessage], queue: str = ""
    ) -> MovingSubscription:
        """Subscribe for as long as `stop` is not called on what is returned, whichever client is `nc`."""
        listener = MovingSubscription(self.listeners, subject, taking, queue)
        listener.subscription = await listener.subscribe_at(self.nc)
        self.listeners.add(listener)
        return listener

    def _opening_error(self) -> BusUnavailable:
        """The error for a connection that could not be opened, with its cause and a remedy."""
        if self._key_refusals and self._token is not None:
            return BusUnavailable(f"the broker at {self.url} refused the token in {self._token.path}: {REFUSED_HINT}")
        if self._key_refusals:
            return BusUnavailable(
                f"the broker at {self.url} refuses this service's key; it runs with other accounts: render them "
                "again from the policy and reload the broker"
            )
        if UNTRUSTED in self.last_error:
            return BusUnavailable(
                f"the broker at {self.url} has no certificate of the CA that this service trusts ({self.last_error}); "
                "BULKHEAD_NATS_CA_FILE must be the CA of this very mesh, and the name in the address one of the "
                "certificate's: provision again, then restart the broker and the service"
            )
        if self._unknown:
            return BusUnavailable(
                f"no broker is found at {self.url}: {self.last_error}; write the broker's right name or its address in "
                "BULKHEAD_NATS_URL, or mend DNS here (in containers: both must be on one network, and the broker must "
                "run)"
            )
        return BusUnavailable(
            f"no broker answers at {self.url} ({self.last_error or 'no connection'}); start the mesh with "
            "`bulkhead up`, or correct the address (a service's is BULKHEAD_NATS_URL)"
        )

    @property
    def _is_hopeless(self) -> bool:
        """True if trying again is of no use: the key or the certificate is the wrong one."""
        refused = bool(self._key_refusals) and self._token is None
        return refused or UNTRUSTED in self.last_error

    async def wait_until_connected(self, timeout_s: float) -> None:
        """Return when the connection stands. Raises BusUnavailable."""
        if self.connected:
            return
        self.check_open()
        try:
            await asyncio.wait_for(self._up.wait(), timeout_s)
        except TimeoutError:
            pass
        self.check_open()
        if not self.connected:
            raise BusUnavailable(f"no connection to the broker at {self.url}: {self.last_error or 'lost'}")

    def check_open(self) -> None:
        """Raise BusClosed when the connection is closed for good."""
        if self.closed.done():
            raise BusClosed(f"the connection is closed: {self.closed.result()}")

    def watch_refusals(self, subject: str, refuse: Refuse) -> None:
        """Call `refuse` when the broker denies a publish on this subject, until `unwatch_refusals`."""
        self._waiting.setdefault(subject.lower(), {})[refuse] = subject

    def unwatch_refusals(self, subject: str, refuse: Refuse) -> None:
        """End of `watch_refusals`."""
        low = subject.lower()
        refusals = self._waiting.get(low)
        if refusals is not None:
            refusals.pop(refuse, None)
            if not refusals:
                del self._waiting[low]

    def send(
        self,
        subject: str,
        body: bytes,
        reply: str = "",
        headers: dict[str, str] | None = None,
        over: DirectClient | None = None,
        *,
        can_wait: bool = False,
    ) -> None:
        """Write one publish. over: the client that was asked, and alone may answer. can_wait: with the next one. Raises
        PublishRefused for what can never be sent, BusUnavailable when closed."""
        if not self.connected:
            self.check_open()
        try:
            frame = header_frame(headers) if headers else b""
            # The broker answers an oversized frame by closing the connection, so it must never leave.
            check_sendable(subject, len(body) + len(frame), self.nc.max_payload)
            (over or self.nc).write_publish(subject, body, reply, frame, can_wait=can_wait)
        except errors.BadHeaderError as error:
            raise PublishRefused(f"{subject[:200]!r} cannot be sent: {error}") from error
        except (errors.Error, OSError) as error:
            raise BusUnavailable(f"{subject} was not sent: {error}") from error

    async def round_trip(self, timeout_s: float) -> bool:
        """True if the broker answers a ping in time."""
        if not self.connected:
            return False
        if self._ping is None or self._ping.done():
            # Not cancelled while the connection stands: nats-py's reader dies of a pong whose waiter was.
            self._ping = asyncio.ensure_future(self._ping_broker())
        ping = self._ping
        await asyncio.wait({ping}, timeout=timeout_s)
        return ping.done() and not ping.cancelled() and self.connected

    async def _ping_broker(self) -> None:
        try:
            await self.nc.flush(timeout=3600)
        except (errors.Error, OSError):
            self.last_error = self.last_error or "the broker answers no ping"

    async def close(self) -> None:
        """Close; `closed` says so."""
        self._closing = True
        if self.renewal is not None:
            await self.renewal.stop()
        if not self.nc.is_closed:
            # nats-py sends what waits before it closes; a broker that went away in this moment takes none of it, which
            # uvloop calls a RuntimeError.
            with suppress(errors.Error, OSError, RuntimeError):
                await self.nc.close()
        await self._on_closed()

    async def _on_error(self, error: Exception) -> None:
        text = str(error)
        low = text.lower()
        self.last_error = text or type(error).__name__
        match = _REFUSED.search(low)
        if match is not None:
            self._on_denied(match.group(1), match.group(2))
            return
        if self._token is not None and EXPIRED in low:
            log.warning(
                "login_ended", url=self.url, file=self._token.path, then="the token that the file holds is shown"
            )
            return
        if self._token is not None and any(refusal in low for refusal in TOKEN_REFUSALS):
            # Whoever can tell may be away for a while: it is tried again, and with the token of then.
            self._key_refusals += 1
            self._log_refused_token(self._token.path)
            return
        if "authorization violation" in low:
            self._key_refusals += 1
            if self._key_refusals >= MAX_KEY_REFUSALS and self._ending is None:
                self._ending = asyncio.ensure_future(self.nc.close())
        self._log_error(error)

    def _log_refused_token(self, file: Path) -> None:
        if self._key_refusals in (1, 10) or self._key_refusals % 100 == 0:
            log.error("token_refused", url=self.url, file=file, times=self._key_refusals, hint=REFUSED_HINT)

    def _log_error(self, error: Exception) -> None:
        unknown = isinstance(error, HostUnknown)
        if unknown and self._unknown is None:
            log.warning("broker_name_unknown", url=self.url, reason=self.last_error, then="it is tried again")
        self._unknown = unknown and self._unknown is not False
        if not isinstance(error, OSError):
            log.warning("bus_error", reason=self.last_error)

    def _on_denied(self, what: str, subject: str) -> None:
        """The broker's text comes in lower case: two subjects that differ in case alone cannot be told apart."""
        waiting = self._waiting.get(subject, {})
        if len(set(waiting.values())) > 1:
            log.warning("publish_denied", subject=subject, ambiguous=True)
            return
        log.warning("publish_denied" if what == "publish" else "subscription_denied", subject=subject)
        for refuse, denied_subject in list(waiting.items()):
            refuse(
                PublishRefused(
                    f"the broker denies this service {denied_subject}: its identity has no such "
                    "right, or its key is another "
                    "service's; add the catalog row or the policy entry, render the accounts and reload the broker"
                )
            )

    async def _on_disconnected(self) -> None:
        was_up, self.connected = self.connected, False
        self._up.clear()
        self._give_up_ping()
        self.last_error = self.last_error or "the broker stopped answering"
        if was_up and not self._closing:
            log.warning("connection_lost", url=self.url, reason=self.last_error)
        for notify in list(self.on_lost):
            notify()

    def _give_up_ping(self) -> None:
        """Its pong died with the connection."""
        ping, self._ping = self._ping, None
        if ping is not None:
            ping.cancel()

    async def _on_reconnected(self) -> None:
        self._key_refusals, self._unknown = 0, None
        self.last_error = ""
        self.connected = True
        self._up.set()
        log.info("connection_returned", url=self.url)
        for notify in list(self.on_returned):
            notify()

    async def _on_closed(self) -> None:
        self.connected = False
        if not self.closed.done():
            reason = "closed by this process" if self._closing else self.last_error or "closed by the broker"
            self.closed.set_result(reason)
        self._give_up_ping()
        self._up.set()
        for notify in list(self.on_lost):
            notify()


def _of_consequence(record: logging.LogRecord) -> bool:
    return "eof_received() has no effect" not in str(record.msg)


def ca_beside(keys: Path) -> Path | None:
    """The CA file that lies with the keys of a mesh whose broker speaks TLS; None where there is none."""
    path = keys / CA_FILE
    return path if path.is_file() else None


def tls_context(ca_file: Path) -> ssl.SSLContext:
    """TLS that takes a server only with a certificate of this CA. Raises BusUnavailable."""
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except OSError as error:  # ssl.SSLError is one too.
        raise BusUnavailable(
            f"the CA file {ca_file} cannot be used: {error.strerror or error}; BULKHEAD_NATS_CA_FILE names the "
            "certificate (PEM) of the CA that signed the broker's"
        ) from error
