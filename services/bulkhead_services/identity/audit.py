"""Audit facts of logins: those by one token from one host, and refusals of a kind, once and then as a count.

In: decisions. Out: `LoginDecided` in the journal, stored behind the answers: who logs in does not wait for it. Whatever
tokens come, refusals make at most 2 * (MAX_KINDS + 1) facts in WINDOW_S: the first of each kind, and the counts of the
window before. What finds no room is one fact when there is room again.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from bulkhead.bus.port import BusClosed, BusError, BusUnavailable
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead.telemetry.log import Log
from bulkhead_contracts import bounds, catalog, subjects
from bulkhead_contracts.identity import LOGINS_BOOK, LoginDecided
from bulkhead_services.identity.core import LoginAdmission, LoginQuestion, LoginRefusal, bounded_word

log = Log("logins")

WINDOW_S = 10.0
MAX_KINDS = 64
"""Kinds of refusals (code, subject, host) told apart in one window; the rest counts as one kind."""
MAX_GRANTS = 10_000
"""Grants (token, host) told apart in one window; each one more is a fact of its own."""
MAX_WAITING = 10_000
RETRY_S, SETTLE_S = 1.0, 2.0

DecisionKind = tuple[str, str, str]
OTHER_KINDS: DecisionKind = ("", "", "")


class LoginAudit:
    """Tells the journal and the log."""

    def __init__(self, publisher: Publisher, clock: Callable[[], int]) -> None:
        self._publisher, self._clock = publisher, clock
        self._waiting: deque[LoginDecided] = deque()
        self._more, self._none = asyncio.Event(), asyncio.Event()
        self._none.set()
        self._granted: dict[DecisionKind, LoginDecided] = {}
        self._refused: dict[DecisionKind, LoginDecided] = {}
        """Of this window, as are those granted, with the count of those that were not told."""
        self._began = 0.0
        self._start = secrets.token_hex(8)
        self._number = 0
        self.lost_count = 0
        """Decisions that found no room, and are not told yet."""
        self._lost_since = 0

    @property
    def waiting_facts(self) -> int:
        """Number of facts that are not stored yet."""
        return len(self._waiting)

    def record_granted(self, admission: LoginAdmission, question: LoginQuestion) -> None:
        """A client was let in. The first by a token from a host is told at once, the others as a count."""
        self._turn_window()
        claims, now_unix_ms = admission.claims, self._clock()
        kind: DecisionKind = (claims.subject, claims.token_id, question.host)
        if _is_counted(self._granted, kind, now_unix_ms):
            return
        fact = LoginDecided(
            granted=True,
            service=admission.service,
            account=admission.permissions.account,
            subject=claims.subject,
            token_id=claims.token_id,
            pod=claims.pod,
            client=question.client,
            host=question.host,
            broker=question.broker,
            expires_unix_ms=claims.expires_s * 1000,
            since_unix_ms=now_unix_ms,
            decided_unix_ms=now_unix_ms,
        )
        self._queue_fact(fact)
        if len(self._granted) < MAX_GRANTS:
            self._granted[kind] = fact.model_copy(update={"count": 0})
        log.info("login_granted", login=admission.service, client=question.client, host=question.host, pod=claims.pod)

    def record_refused(self, refusal: LoginRefusal, question: LoginQuestion) -> None:
        """A client was not let in. The first of a kind is told at once, the others as a count."""
        self._turn_window()
        subject = refusal.claims.subject if refusal.claims is not None else ""
        kind: DecisionKind = (refusal.code, subject, question.host)
        if kind not in self._refused and len(self._refused) >= MAX_KINDS:
            kind = OTHER_KINDS
        now_unix_ms = self._clock()
        if _is_counted(self._refused, kind, now_unix_ms):
            return
        fact = LoginDecided(
            granted=False,
            code=refusal.code if kind != OTHER_KINDS else "many",
            reason=bounded_word(f"{refusal.reason}; {refusal.hint}", bounds.MAX_REASON_CHARS)
            if kind != OTHER_KINDS
            else "more kinds of refusals than are told apart",
            subject=subject if kind != OTHER_KINDS else "",
            token_id=refusal.claims.token_id if refusal.claims is not None and kind != OTHER_KINDS else "",
            client=question.client if kind != OTHER_KINDS else "",
            host=question.host if kind != OTHER_KINDS else "",
            broker=question.broker,
            since_unix_ms=now_unix_ms,
            decided_unix_ms=now_unix_ms,
        )
        log.warning("login_refused", code=fact.code, reason=fact.reason, token_of=fact.subject, host=fact.host)
        self._queue_fact(fact)
        self._refused[kind] = fact.model_copy(update={"count": 0})

    def _turn_window(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s - self._began >= WINDOW_S:
            self._began = now_s
            granted, refused = self._granted, self._refused
            self._granted, self._refused = {}, {}
            for fact in granted.values():
                if fact.count:
                    self._queue_fact(fact)
                    log.info("logins_granted", login=fact.service, more=fact.count, host=fact.host, pod=fact.pod)
            for fact in refused.values():
                if fact.count:
                    self._queue_fact(fact)
                    log.warning(
                        "logins_refused", code=fact.code, more=fact.count, token_of=fact.subject, host=fact.host
                    )

    def _queue_fact(self, fact: LoginDecided) -> None:
        if len(self._waiting) >= MAX_WAITING:
            self._lost_since = self._lost_since if self.lost_count else fact.decided_unix_ms
            self.lost_count += fact.count
            return
        self._waiting.append(fact)
        self._more.set()
        self._none.clear()

    def _tell_lost(self) -> None:
        """Once half of the room is free: or each one that is stored would make room for another such fact."""
        if not self.lost_count or len(self._waiting) > MAX_WAITING // 2:
            return
        lost, self.lost_count = self.lost_count, 0
        log.error("login_facts_lost", decisions=lost, since_unix_ms=self._lost_since)
        reason = "no other fact tells of these decisions: the journal took none for a while; the broker logs refusals"
        now_unix_ms = self._clock()
        since = self._lost_since
        self._queue_fact(
            LoginDecided(
                granted=False,
                code="facts_lost",
                reason=reason,
                count=lost,
                since_unix_ms=since,
                decided_unix_ms=now_unix_ms,
            )
        )

    async def run(self) -> None:
        """Store the facts, one after the other, until cancelled."""
        while True:
            if not self._waiting:
                self._more.clear()
                self._none.set()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._more.wait(), WINDOW_S)
                self._turn_window()
                continue
            if await self._store_fact(self._waiting[0]):
                self._waiting.popleft()
                self._number += 1
                self._tell_lost()
            else:
                await asyncio.sleep(RETRY_S)

    async def wait_until_stored(self) -> None:
        """Wait until the facts are stored, SETTLE_S at most."""
        self._began = 0.0
        self._turn_window()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._none.wait(), SETTLE_S)

    async def _store_fact(self, fact: LoginDecided) -> bool:
        """True when it is stored. The same number gives the same ids: a repeat is not stored twice."""
        try:
            await self._publisher.send(
                catalog.JOURNAL,
                fact,
                tenant=subjects.EVERYBODY,
                task=LOGINS_BOOK,
                index=f"{self._start}-{self._number}",
            )
        except BusClosed:
            raise
        except (BusUnavailable, BusError) as error:
            log.error("login_not_recorded", reason=str(error), waiting=len(self._waiting), then="it is tried again")
            return False
        return True


def _is_counted(rows: dict[DecisionKind, LoginDecided], kind: DecisionKind, now: int) -> bool:
    """True when this window has told of one like it, so that it only counts."""
    earlier = rows.get(kind)
    if earlier is not None:
        rows[kind] = earlier.model_copy(update={"count": earlier.count + 1, "decided_unix_ms": now})
    return earlier is not None
