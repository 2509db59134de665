"""One run: a scenario under a chaos. The mesh of real services, the people who use it, and time.

In: Scenario, Chaos. Out: a Record of all that was stored, said and done outside, for the oracle.
"""

import asyncio
import logging
import shutil
import tempfile
from collections import Counter as Tally
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from contextvars import copy_context
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

from bulkhead.bus.memory.bus import MemoryBus
from bulkhead.bus.port import BusError
from bulkhead.grants import new_signing_seed, public_of
from bulkhead.runtime.consume import inbound
from bulkhead.runtime.consume import loop as consume_loop
from bulkhead.runtime.context import ServiceIdentity, make_context
from bulkhead.runtime.decider.fold import FoldHandler, TaskFold, as_message, fold_message
from bulkhead.runtime.doer import reservations_ahead
from bulkhead.runtime.errors import Unreadable
from bulkhead.runtime.halts import live
from bulkhead.runtime.process.service import Service
from bulkhead_contracts import catalog, subjects
from bulkhead_contracts.budget import ReserveReplied, ReserveRequested, id_ahead
from bulkhead_contracts.control import MessageRejected
from bulkhead_contracts.result import ContentRef
from bulkhead_contracts.task import RequesterClaim, TaskEnded, TaskRejected
from bulkhead_infra.composition import Logics, composition_root
from bulkhead_services.budget.app import Budget
from bulkhead_services.gateway import app as gateway
from bulkhead_services.gateway.http.task_document import describe_task
from bulkhead_services.gateway.settings import PublisherSettings
from bulkhead_services.model_gateway import app as model_gateway
from bulkhead_services.tool_executor import app as tool_executor
from tests.replay import next_logic
from tests.simulation import situations
from tests.simulation.laws.record import Record
from tests.simulation.mesh import library, once
from tests.simulation.mesh.chaos import KILLED, Chaos, Fault
from tests.simulation.mesh.loop import WHO, LoopClock, SimulationLoop
from tests.simulation.mesh.net import Link, Net
from tests.simulation.mesh.outside import Counter, Model
from tests.simulation.mesh.people import PUBLISHERS, ROBOT, NoGateway, People
from tests.simulation.mesh.redis_server import SimulatedRedis
from tests.simulation.situations.faults import checkpoints
from tests.simulation.situations.wishes import ahead, approvals

from .scenario import SERVICES, Act, Scenario

CALM_AFTER_S = 40.0
"""Nothing new goes wrong after this: what was accepted must end, however bad it was before."""
GIVE_UP_AFTER_S = 900.0
AFTERWARDS_S = 60.0
WATCH_EVERY_S = 1.0
"""Five times as long as it is by default: a run has hundreds of seconds."""
PACES = tuple(
    (module, name, getattr(module, name), rare)
    for module, name, rare in ((consume_loop, "FETCH_TIMEOUT_S", AFTERWARDS_S), (live, "REREAD_S", AFTERWARDS_S / 2))
)
"""How often services that wait look again, usually and when all is done: then every look finds the same."""
ENDS = (TaskEnded.TYPE, TaskRejected.TYPE)
DECIDERS: Mapping[str, Logics] = next_logic.LOGICS
TENANTS = once.TENANTS
T = TypeVar("T")


class HeadlessGateway(gateway.GatewayService):
    """The gateway without its listening socket."""

    async def start(self) -> None:
        """Subscribe only."""
        await self.attach_inbox()


class World:
    """Runs one scenario."""

    def __init__(self, scenario: Scenario, chaos: Chaos, folder: Path, loop: SimulationLoop) -> None:
        self.scenario, self.chaos = scenario, chaos
        self._loop, self._folder = loop, folder
        self._clock = LoopClock(loop, scenario.start_ms)
        self.net = Net(scenario, chaos, self._clock, self.tell)
        model, counter = Model(chaos), Counter(chaos)
        redis = SimulatedRedis(chaos, scenario.lease_ms)
        self.record = Record(
            scenario, chaos, self.net, model, counter, redis, purged=self.net.purged, halts=self.net.halts
        )
        self._people = People(self)
        chaos.on_pause = self.pause
        self.sayings = self.record.sayings
        self._own = copy_context()
        self._running: dict[str, tuple[MemoryBus, asyncio.Task[None], Service]] = {}
        self._starting = Tally[str]()
        self._over = False
        self._ended: set[str] = set()
        self._looked = 0
        self._rolled: set[str] = set()
        self.ahead_ms: dict[str, int] = {}
        """So far the clock of a replica is ahead of the broker's."""
        self._clocks_differ = any(one.situation == "clocks" for one in scenario.acts)
        self.publics = {name: public_of(seed) for name, seed in seeds().items()}

    @property
    def running(self) -> tuple[str, ...]:
        """Every replica that runs now."""
        return tuple(self._running)

    @property
    def buses(self) -> tuple[MemoryBus, ...]:
        """Of every replica that runs."""
        return tuple(bus for bus, _, _ in self._running.values())

    def tell(self, line: str) -> None:
        """A line of the story."""
        self.record.story.append(f"{self._loop.time():9.3f} {line}")

    # Replicas

    def start(self, who: str) -> None:
        """Start a replica, `<service>-<number>`."""
        if self._over or who in self._running:
            return
        name = who.rpartition("-")[0]
        self._starting[who] += 1
        bus = MemoryBus(Link(self, who), who)  # type: ignore[arg-type]
        identity = ServiceIdentity(f"seed-of-{name}", seeds()[name], self.publics)
        clock = self._clock.now_ms if not self._clocks_differ else partial(self._now_ms, who)
        found = make_context(name, f"{who}.{self._starting[who]}", bus, identity, clock=clock)
        service = Service(found, self._component(name, found), shards=self.scenario.shards, slots=16)
        context = copy_context()
        context.run(WHO.set, who)
        self.net.contexts[who] = context.copy()
        task = self._loop.create_task(service.run(), name=who, context=context)
        self._running[who] = (bus, task, service)
        task.add_done_callback(lambda done: self._stopped(who, done))

    def _now_ms(self, who: str) -> int:
        return self._clock.now_ms() + self.ahead_ms.get(who, 0)

    def _stopped(self, who: str, done: "asyncio.Task[None]") -> None:
        if not done.cancelled() and (error := done.exception()) is not None:
            self.tell(f"ENDED {who}: {error!r}")
        found = self._running.get(who)
        if found is not None and found[1] is done:
            # As a supervisor does.
            del self._running[who]
            self._loop.call_later(1.0, self.start, who, context=self._own)

    def crash(self, who: str, when: str) -> None:
        """As kill -9: nothing is handed back; a supervisor starts it again."""
        found = self._running.pop(who, None)
        if found is None:
            return
        self.record.crashes += 1
        self.tell(f"CRASH {who} {when}")
        bus, task, _ = found
        self._loop.go_on(who)
        bus.cut_off()
        task.cancel()
        self._loop.call_later(0.3 + self.record.crashes % 3, self.start, who, context=self._own)

    def pause(self, who: str, for_s: float) -> None:
        """As kill -STOP, and -CONT later; or the machine beneath it stands still."""
        if who in self._running:
            self.tell(f"STANDS STILL {who} for {for_s:.1f} s")
            self._loop.stand_still(who)
            self._loop.call_later(for_s, self._loop.go_on, who, context=self._own)

    def _component(self, name: str, context: Any) -> Any:
        known = settings(self._folder)
        if name in DECIDERS:
            waits = self.scenario.roll_after_s is not None and name not in self._rolled
            known_logic = self.scenario.logic if waits else self.scenario.newest
            return {version: logic for version, logic in DECIDERS[name].items() if version <= known_logic}
        match name:
            case "budget":
                knobs = known["budget"].model_copy(
                    update={
                        "lease_ms": self.scenario.lease_ms,
                        "watch": "on" if self.scenario.watched else "off",
                        **checkpoints.settings_of(self.scenario),
                    }
                )
                return self._overheard(Budget(context, knobs, self.record.redis.view()))
            case "model_gateway":
                return model_gateway.build(context, known[name], self.record.model, lambda: 0.5)
            case "tool_executor":
                return tool_executor.build(context, known[name], self.record.counter, rule=approvals.rule)
            case "gateway":
                logic = self.scenario.newest if "gateway" in self._rolled else self.scenario.logic
                return HeadlessGateway(context, known["gateway"].model_copy(update={"logic": logic}))
            case "rag":
                return ahead.build_rag(context, known["rag"], self.scenario, self.chaos)
            case _:
                return composition_root(name).build(context, known[name])

    def _overheard(self, component: Budget) -> Budget:
        """Which reservations it says it holds: a fact may stand in the journal of which nobody was ever told."""
        admit = component.rpc[ReserveRequested]

        async def answer(message: Any) -> Any:
            reply = await admit(message)
            if isinstance(reply, ReserveReplied) and reply.decision == "reserved":
                ahead = (id_ahead(reply.reservation_id, number) for number in range(1, reply.ahead + 1))
                self.record.held.update((message.sender, held) for held in (reply.reservation_id, *ahead))
            return reply

        component.rpc = {**component.rpc, ReserveRequested: answer}
        return component

    # People

    async def run(self) -> Record:
        """Everything, until all is quiet."""
        # A run has few steps, and they are short.
        with patch.object(reservations_ahead, "MIN_STEPS", 1):
            return await self._run()

    async def _run(self) -> Record:
        for name in SERVICES:
            for number in range(self.scenario.replicas.get(name, 1)):
                self.start(f"{name}-{number}")
        people = [self._loop.create_task(self._people.person(wish), name=wish.name) for wish in self.scenario.wishes]
        people += [self._loop.create_task(self._act(act), name=f"{act.name} {act.what}") for act in self.scenario.acts]
        self._loop.call_later(CALM_AFTER_S, self._calm)
        if self.scenario.roll_after_s is not None:
            people.append(self._loop.create_task(self._roll(self.scenario.roll_after_s), name="who rolls it"))
        self._loop.have_patience(GIVE_UP_AFTER_S, lambda: self._send_home(people))
        try:
            await asyncio.gather(*people)
        except asyncio.CancelledError:
            if not self.record.unheard:
                raise
        await self._quiet()
        self.record.ended_at_s = self._loop.time()
        self._calm()
        await self._look_at_tasks()
        self._look_into_memories()
        await self.end()
        return self.record

    def _send_home(self, people: list[asyncio.Task[None]]) -> None:
        """Whoever was not answered by now never is: a run must end to be judged."""
        self.record.unheard = [one.get_name() for one in people if not one.done()]
        for one in people:
            one.cancel()

    async def end(self) -> None:
        """Nothing of the mesh runs any more, and nothing is started again."""
        self._over = True
        for bus, task, _ in self._running.values():
            bus.cut_off()
            task.cancel()
        self._running.clear()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _roll(self, after_s: float) -> None:
        """Every replica of the deciders, then the gateway, whose new tasks have the new logic from then on."""
        await asyncio.sleep(after_s)
        for name in (*DECIDERS, "gateway"):
            self._rolled.add(name)
            for who in [one for one in self._running if one.startswith(f"{name}-")]:
                self.tell(f"ROLL {who} to logic {self.scenario.newest}")
                found = self._running.get(who)
                if found is not None:
                    found[2].drain()
                await asyncio.sleep(0.2)

    async def restart(self, name: str) -> None:
        """Every replica of a service, one after the other."""
        for who in [one for one in self._running if one.startswith(f"{name}-")]:
            found = self._running.get(who)
            if found is not None:
                bus, task, service = found
                self.tell(f"RESTART {who}")
                service.drain()
                away = self.net.is_cut_off(who)
                await asyncio.wait({task})
                await bus.close()
                if away or self.net.is_cut_off(who):
                    # What it could not store before it had to go is lost, as with one that is killed.
                    self.chaos.fired.append(Fault(KILLED, f"{who} restarted", self._starting[who]))

    def _look_into_memories(self) -> None:
        """What each replica remembers of a task, beside a fold of the task's inbox from its beginning."""
        known: dict[tuple[str, str, str, int], Any] = {}
        for who, (_, _, service) in self._running.items():
            if not isinstance(service.handler, FoldHandler):
                continue
            for (tenant, task), fold in service.handler._folds.items():
                name = (service.context.service, tenant, task, fold.sequence)
                if name not in known:
                    known[name] = self._fold(*name)
                fresh = known[name]
                self.record.remembered.append((who, f"{tenant}/{task}", fold.state, fresh))

    def _fold(self, service: str, tenant: str, task: str, last: int) -> Any:
        stored = self.record.stored(subjects.inbox_stream(service), subjects.task_filter(service, tenant, task))
        found, rejected = [], set()
        for one in stored:
            try:
                message = inbound.read_message(one, service)
            except Unreadable:
                continue
            found.append(message)
            if isinstance(message.body, MessageRejected):
                rejected.add(message.body.sequence)
        fold: TaskFold = TaskFold(state=None)
        for message in found:
            if message.sequence <= last and message.sequence not in rejected:
                wanted = DECIDERS[service][fold.logic or message.envelope.logic].wanted_contents(message.body)
                contents = {ref.sha256: self._content(tenant, ref) for ref in wanted}
                fold_message(fold, as_message(message, contents), DECIDERS[service])
        return fold.state

    def _content(self, tenant: str, ref: ContentRef) -> str:
        if ref.carried_text is not None:
            return ref.carried_text
        stored = self.net.get_stream(subjects.BLOBS_STREAM).newest(
            subjects.blob_subject(ref.author, tenant, ref.sha256)
        )
        return stored.body.decode() if stored is not None else ""

    def _calm(self) -> None:
        self.chaos.calm = True
        self.net.cut_off.clear()
        for who in self._running:
            self._loop.go_on(who)
        self.tell("CALM: nothing new goes wrong from here on")

    async def _act(self, act: Act) -> None:
        """What a situation does at its time."""
        await asyncio.sleep(act.at_s)
        do = situations.BY_NAME[act.situation].do
        assert do is not None
        self.tell(f"ACT {act.name} {act.what}")
        await do(self, act)
        self.record.acts.append(act.name)

    def gateway(self, number: int = 0) -> HeadlessGateway:
        """A replica of the gateway that runs: of several, the one whose turn this is. Raises NoGateway."""
        components = (service.component for _, _, service in self._running.values())
        able = [replica for replica in components if isinstance(replica, HeadlessGateway) and replica.http.started]
        if not able:
            raise NoGateway
        return able[number % len(able)]

    async def checkpoint(self) -> None:
        """Some replica of budget makes one of its ledger."""
        while True:
            with suppress(BusError):
                for _, _, service in list(self._running.values()):
                    budget = service.component
                    if isinstance(budget, Budget) and await budget.checkpoints.make_checkpoint(at_once=True):
                        return
            await asyncio.sleep(0.5)

    async def _look_at_tasks(self) -> None:
        """What the gateway shows of every task, from what it remembers and the inbox."""
        component = self.gateway()
        for wish in self.scenario.wishes:
            task = self.record.tasks.get(wish.name)
            if task is not None and task not in self.record.gone:
                feed = await component.feeds.fresh_feed(wish.tenant, task)
                reader = RequesterClaim(tenant=wish.tenant, person="looker", role="auditor", via="api_key")
                blobs, policies = component._context.blobs, component._settings.publishers
                seen = await describe_task(feed, blobs, policies, reader=reader)
                self.record.views[task] = seen.model_dump(mode="json")

    async def _quiet(self) -> None:
        """Until every accepted task has ended and no inbox has anything left."""
        while self._loop.time() < GIVE_UP_AFTER_S:
            if self._all_ended() and self._nothing_waits():
                if self.record.idle:
                    return
                self.record.idle = True
                # What services tidy up by themselves, some time after.
                _pace(idle=True)
                await asyncio.sleep(AFTERWARDS_S)
                continue
            self.record.idle = False
            _pace(idle=False)
            await asyncio.sleep(1.0)

    def _all_ended(self) -> bool:
        inbox = self.net.get_stream("INBOX_GATEWAY")
        fresh = (*inbox.read(">", self._looked, 1_000_000), *self.record.purged.get("INBOX_GATEWAY", ()))
        self._looked = inbox.last_sequence
        self._ended.update(one.task for one in fresh if one.headers.get("ce-type", "").startswith(ENDS))
        return set(self.record.tasks.values()) <= self._ended

    def _nothing_waits(self) -> bool:
        return all(
            not durable.pending and durable.cursor >= durable.stream.last_sequence
            for durable in self.net._durables.values()
        )


def _pace(*, idle: bool) -> None:
    for module, name, usual, rare in PACES:
        setattr(module, name, rare if idle else usual)


@cache
def seeds() -> dict[str, str]:
    """A signing key per service, the same in every run of this process."""
    return {name: new_signing_seed() for name in (*catalog.SERVICES,)}


@cache
def settings(folder: Path) -> dict[str, Any]:
    """Settings of every service; reading them costs more than a run."""
    nobody = "http://127.0.0.1:9"
    publishers = {name: PublisherSettings(tenant=tenant, person=ROBOT) for name, tenant in PUBLISHERS.items()}
    own: dict[str, dict[str, Any]] = {
        "budget": {"redis_url": "memory://", "watch_interval_s": WATCH_EVERY_S},
        "model_gateway": {"openai_base_url": f"{nobody}/v1", "openai_api_key": "sim", "model": "offline-rules-1"},
        "tool_executor": {"counter_url": nobody, "approval_ttl_s": approvals.TTL_S},
        "signer": {"tenants_file": TENANTS, "counter_url": nobody},
        "registry": {"tenants_file": TENANTS},
        "gateway": {"http_port": 0, "tenants_file": TENANTS, "publishers": publishers},
    }
    return {name: composition_root(name).settings(data_dir=folder, **own.get(name, {})) for name in SERVICES}


def run(scenario: Scenario, chaos: Chaos, folder: Path) -> Record:
    """One run in virtual time."""
    return in_virtual_time(lambda loop: World(scenario, chaos, folder, loop).run())


def in_virtual_time(play: Callable[[SimulationLoop], Coroutine[Any, Any, T]]) -> T:
    """The result of `play`, on a loop of its own that keeps no time of ours."""

    async def begin() -> T:
        return await play(loop)

    loop = SimulationLoop()
    loop.set_exception_handler(lambda loop, context: None)
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(begin())
    finally:
        _pace(idle=False)
        once.forget()
        asyncio.set_event_loop(None)
        loop.close()
        for name in ("_all_tasks", "_scheduled_tasks"):  # In Python 3.11, and since.
            # Who asks for all tasks of a loop looks at those of every loop before it that nobody has collected yet.
            getattr(asyncio.tasks, name, set()).clear()


def quiet_logs() -> None:
    """The services' logs are not of interest: the story tells. Nor is what every run would read anew."""
    once.remember()
    logging.getLogger("bulkhead").setLevel(logging.CRITICAL)
    logging.getLogger("httpx").setLevel(logging.CRITICAL)


class Folder:
    """A data directory for the runs of one process."""

    def __enter__(self) -> Path:
        self._path = Path(tempfile.mkdtemp(prefix="bulkhead-simulation-"))
        library.fill(self._path)
        return self._path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._path, ignore_errors=True)
