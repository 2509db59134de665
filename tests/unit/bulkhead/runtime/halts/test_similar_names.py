"""`a.b` and `a-b` look alike in a subject: what is halted, or broken, of one name is so of no other; and what the
version before wrote, which knew only how a name looks, holds all that look like it until it is lifted.
"""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkhead.bus.memory.bus import MemoryBroker, MemoryBus
from bulkhead.health.breakers.state_machine import BreakerState as Broken
from bulkhead.health.thresholds import DEFAULT
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.runtime.halts.live import Halts, HaltTarget
from bulkhead.runtime.halts.operator import OPERATOR, HaltRequest, standing_halts, switch_halt
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead_contracts import subjects
from bulkhead_contracts.control import Breaker, Halt, HaltRequested, ResetRequested
from bulkhead_contracts.envelope import Envelope
from bulkhead_contracts.result import Failure
from bulkhead_contracts.task import RequesterClaim
from bulkhead_services.budget.queries.halts import HaltRequestHandler
from bulkhead_services.budget.watch.breaker_entries import BreakerEntryOwner
from bulkhead_services.budget.watch.fold import WatchFold
from bulkhead_services.budget.watch.notices import DueNotices

NOW = 1_795_000_000_000
DOTTED, DASHED = "claude-3.5-sonnet", "claude-3-5-sonnet"
NAMES = st.one_of(st.text("ab.-_ /é", min_size=1, max_size=6), st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True))
TENANTS = st.sampled_from(["", "acme", "a", "a-b"])


class Place:
    """What budget's switches need of a context; and a doer's view beside it."""

    def __init__(self) -> None:
        self.bus = MemoryBus(MemoryBroker.for_mesh(), "budget")
        self.publisher = Publisher("budget", self.bus, b"b" * 32, lambda: NOW)
        self.halts = Halts(self.bus)
        self._asked = itertools.count()

    def clock(self) -> int:
        return NOW

    async def says(self, entry: Halt | Breaker, key: str) -> None:
        """An entry as it stands, by whoever wrote it."""
        await self.bus.publish(key, entry.model_dump_json().encode(), {}, f"{key}{next(self._asked)}")

    async def held(self, model: str, now: int = NOW) -> bool:
        """Whether a doer's call of this model is held back."""
        await self.halts.load()
        target = HaltTarget("acme", "t1", model=model)
        return self.halts.find(target) is not None or self.halts.holding_breaker(target, now) is not None

    async def press(self, name: str, *, active: bool, tenant: str = "") -> Halt | Failure:
        wish = HaltRequest("model", tenant, name, active, "because", f"{OPERATOR}ann", NOW + next(self._asked))
        return await switch_halt(self.bus, self.publisher, wish)

    def received(self, body: HaltRequested | ResetRequested) -> ReceivedMessage:
        head = Envelope(id=f"m{next(self._asked)}", type=body.ce_type(), source="gateway", time_unix_ms=NOW)
        return ReceivedMessage(head, body, "acme", "halts", "gateway", 0, NOW, 1)


def old_halt(**changes: object) -> Halt:
    """As the version before wrote it: it names nothing but the token."""
    fields = {"scope": "model", "name": DASHED, "code": "x", "reason": "r", "by": f"{OPERATOR}ann", "pauses": True}
    found = Halt.model_validate_json(json.dumps(fields | changes))
    assert not found.called
    return found


def old_breaker(**changes: object) -> Breaker:
    return Breaker.model_validate_json(
        json.dumps(
            {
                "scope": "model",
                "tenant": "acme",
                "name": DASHED,
                "phase": "open",
                "since_unix_ms": NOW - 9,
                "until_unix_ms": NOW + 30_000,
                "reason": "7 of 10 calls failed",
            }
            | changes
        )
    )


@given(first=st.tuples(TENANTS, NAMES), second=st.tuples(TENANTS, NAMES), scope=st.sampled_from(["tool", "model"]))
def test_two_names_never_share_a_key(first: tuple[str, str], second: tuple[str, str], scope: str) -> None:
    for key in (subjects.halt_key, subjects.breaker_key):
        assert (key(scope, *first) == key(scope, *second)) == (first == second)
    assert subjects.halt_key(scope, *first) != subjects.breaker_key(scope, *second)


def test_a_name_that_is_a_token_lies_where_it_always_did() -> None:
    assert subjects.halt_key("tool", "acme", "http_get") == "$KV.CONTROL.tool.acme.http_get"
    assert subjects.halt_key("tool", "", "http_get") == "$KV.CONTROL.tool.http_get"
    assert subjects.breaker_key("tenant", "", "acme") == "$KV.CONTROL.breaker.tenant.acme"


@pytest.mark.parametrize(("name", "other"), [(DOTTED, DASHED), (DASHED, DOTTED)])
@pytest.mark.parametrize("tenant", ["", "acme"])
async def test_a_halt_of_one_name_is_none_of_the_other_and_each_is_lifted_alone(
    name: str, other: str, tenant: str
) -> None:
    place = Place()
    halted = await place.press(name, active=True, tenant=tenant)
    assert isinstance(halted, Halt) and (halted.known_as, halted.name) == (name, DASHED)
    assert (await place.held(name), await place.held(other)) == (True, False)
    event = place.halts.halt_event(HaltTarget("acme", "t1", model=name))
    await place.press(other, active=True, tenant=tenant)
    assert {one.known_as for one in await standing_halts(place.bus)} == {name, other}
    await place.press(name, active=False, tenant=tenant)
    assert (await place.held(name), await place.held(other), event.is_set()) == (False, True, False)
    again = await place.press(name, active=False, tenant=tenant)
    assert isinstance(again, Failure) and again.code == "not_halted"


@pytest.mark.parametrize("lifted_as", [DOTTED, DASHED])
async def test_a_halt_of_the_version_before_holds_both_until_it_is_lifted_under_either(lifted_as: str) -> None:
    place = Place()
    await place.says(old_halt(), subjects.halt_key("model", "", DASHED))
    assert await place.held(DOTTED) and await place.held(DASHED)
    assert await place.press(DOTTED, active=True) == old_halt(), "it is halted already"
    lifted = await place.press(lifted_as, active=False)
    assert isinstance(lifted, Halt) and not lifted.active
    assert not await place.held(DOTTED) and not await place.held(DASHED)
    assert await standing_halts(place.bus) == []
    await place.press(DOTTED, active=True)
    assert (await place.held(DOTTED), await place.held(DASHED)) == (True, False)


async def test_one_of_the_version_before_reads_a_halt_by_its_token() -> None:
    """Its replicas remember by scope, tenant and `name`: while they run, too much is held rather than too little."""
    place = Place()
    halted = await place.press(DOTTED, active=True)
    assert isinstance(halted, Halt) and (halted.scope, halted.tenant, halted.name) == ("model", "", DASHED)


@pytest.mark.parametrize(("called", "hits"), [(DOTTED, DOTTED), ("", DASHED), ("gpt-4.1", DASHED)])
async def test_a_gateway_asks_for_the_whole_name_and_one_of_before_for_its_token(called: str, hits: str) -> None:
    """A whole name that does not fit its token is none."""
    place = Place()
    ann = RequesterClaim(tenant="acme", person="ann", role="operator", via="api_key")
    for active in (True, False):
        ask = HaltRequested(requester=ann, scope="model", name=DASHED, called=called, active=active, reason="r")
        reply = await HaltRequestHandler(place).answer_halt(place.received(ask))  # type: ignore[arg-type]
        assert reply.halt is not None and reply.halt.known_as == hits
        assert await place.held(hits) is active
        assert not await place.held("gpt-4.1")


async def test_each_name_has_a_breaker_of_its_own() -> None:
    place, circuits = Place(), WatchFold(DEFAULT).watch.breakers
    owner, key = BreakerEntryOwner(place.bus, b"b" * 32), ("model", "acme", DOTTED)
    opened = Broken("model", DOTTED, phase="open", since_unix_ms=NOW, until_unix_ms=NOW + 9_000, openings=1)
    for name in (DASHED, DOTTED):
        circuits.adopt_breaker(("model", "acme", name), Broken("model", name))
    circuits.adopt_breaker(key, opened)
    circuits.changed[key] = opened
    await owner.sync_entries(circuits, DueNotices())
    assert (await place.held(DOTTED), await place.held(DASHED)) == (True, False)
    other = WatchFold(DEFAULT).watch.breakers
    await BreakerEntryOwner(place.bus, b"b" * 32).sync_entries(other, DueNotices())
    assert {name[2]: one.phase for name, one in other.states.items()} == {DOTTED: "open"}, "whoever leads next"
    assert not await place.held(DOTTED, NOW + 9_000) and await place.held(DOTTED, NOW + 9_001), "one trial at a time"


async def test_a_breaker_of_the_version_before_holds_both_for_its_time_and_goes_over_to_the_whole_name() -> None:
    place, circuits = Place(), WatchFold(DEFAULT).watch.breakers
    loose, key = subjects.breaker_key("model", "acme", DASHED), ("model", "acme", DOTTED)
    await place.says(old_breaker(), loose)
    assert await place.held(DOTTED) and await place.held(DASHED)
    for at in (NOW + 30_000, NOW + 30_001):
        assert not await place.held(DOTTED, at), "nobody who knows the whole name would end its trials"
    circuits.adopt_breaker(key, Broken("model", DOTTED))
    owner = BreakerEntryOwner(place.bus, b"b" * 32)
    await owner.sync_entries(circuits, DueNotices())
    assert circuits.states[key].phase == "open"
    circuits.changed[key] = circuits.states[key]
    await owner.sync_entries(circuits, DueNotices())
    assert (await place.held(DOTTED), await place.held(DASHED)) == (True, False)


async def test_a_breaker_is_reset_by_its_whole_name_also_where_it_stands_under_its_token() -> None:
    place = Place()
    ann = RequesterClaim(tenant="acme", person="ann", role="operator", via="api_key")
    ask = ResetRequested(requester=ann, scope="model", name=DASHED, called=DOTTED, reason="r")
    await place.says(old_breaker(), subjects.breaker_key("model", "acme", DASHED))
    reply = await HaltRequestHandler(place).answer_reset(place.received(ask))  # type: ignore[arg-type]
    assert reply.breaker is not None and not await place.held(DOTTED) and not await place.held(DASHED)
    for name in (DOTTED, DASHED):
        await place.says(old_breaker(called=name), subjects.breaker_key("model", "acme", name))
    reply = await HaltRequestHandler(place).answer_reset(place.received(ask))  # type: ignore[arg-type]
    assert reply.breaker is not None and reply.breaker.known_as == DOTTED
    assert (await place.held(DOTTED), await place.held(DASHED)) == (False, True)


@pytest.mark.parametrize("scope", ["tool", "feature", "task"])
async def test_the_halts_of_a_tenant_named_breaker_are_halts(scope: str) -> None:
    place = Place()
    halted = await switch_halt(
        place.bus, place.publisher, HaltRequest(scope, "breaker", "x", True, "r", f"{OPERATOR}ann", NOW)
    )  # type: ignore[arg-type]
    assert isinstance(halted, Halt)
    await place.halts.load()
    assert place.halts.find(HaltTarget("breaker", "x", feature="x", tool="x")) == halted
