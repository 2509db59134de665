"""Halts of tasks that budget ends, and the messages that tell what such a task has cost.

In: a task with its reason, the ledger's balance. Out: the halt in the control entries, which cuts streams in flight;
`TaskHalted` to the planner; `TaskCharged` to the gateway. Shared by admission, settlement and the watch.
"""

from bulkhead.bus.port import Bus
from bulkhead.runtime.edge.protocol import ReceivedMessage
from bulkhead.runtime.publish.publisher import Publisher
from bulkhead.telemetry.log import Log
from bulkhead_contracts import envelope, subjects
from bulkhead_contracts.budget import TaskHalted
from bulkhead_contracts.control import Halt
from bulkhead_services.budget.ledger import facts
from bulkhead_services.budget.ledger.accounts import task_scope
from bulkhead_services.budget.ledger.fact_lookup import measured_usage
from bulkhead_services.budget.ledger.model import Balance, MetCeiling
from bulkhead_services.budget.ledger.store import LedgerStore
from bulkhead_services.budget.limits import messages

log = Log("budget")


def halt_of(message: ReceivedMessage, code: str, reason: str, by: str) -> Halt:
    """The halt that ends a message's task."""
    return Halt(scope="task", tenant=message.tenant, name=message.task, code=code, reason=reason, by=by)


class TaskHaltPublisher:
    """Ends tasks live and durably, and tells their charge. message_key: of budget's own control entries."""

    def __init__(self, bus: Bus, publisher: Publisher, store: LedgerStore, message_key: bytes) -> None:
        self._bus, self._publisher, self._store, self._message_key = bus, publisher, store, message_key

    async def publish_halt(self, halt: Halt, index: str) -> None:
        """Store the live halt. index: names the cause, so that a repeat is the same entry. Raises BusError."""
        await self._bus.publish(
            subjects.control_key(halt.scope, halt.tenant, halt.name),
            halt.model_dump_json().encode(),
            {"content-type": envelope.CONTENT_TYPE},
            envelope.message_id(self._message_key, index),
        )

    async def end_task(self, message: ReceivedMessage, ceiling: MetCeiling, reason: str) -> None:
        """End the task at a ceiling: doers cut their streams, the planner ends it, and from now on every settlement of
        it is told. Raises BusError, Fenced, RedisFailure."""
        log.warning("task_halted", tenant=message.tenant, task=message.task, scope=ceiling.scope, reason=reason)
        halt = halt_of(message, messages.CODE, reason, self._publisher.service)
        halted, head = TaskHalted(code=messages.CODE, reason=reason, scope=ceiling.scope), message.envelope
        # The planner first: what the halt cuts short reaches it later, and knows less of why.
        await self._publisher.send(
            "planner", halted, **message.cause_fields, index="halted", actor=head.actor, grant_digest=head.grant_digest
        )
        await self.publish_halt(halt, f"halt/{head.id}")
        await self.stop_and_publish_charge(message)

    async def stop_and_publish_charge(self, message: ReceivedMessage) -> None:
        """Tell the charge of a task that was ended, now and with every later settlement. Raises BusError, Fenced,
        RedisFailure."""
        await self.publish_charge(message, await self._store.stop_scope(task_scope(message.tenant, message.task)))

    async def publish_charge(self, message: ReceivedMessage, balance: Balance) -> None:
        """Tell the gateway what all calls of the task have cost by now. Raises BusError."""
        usage = await measured_usage(self._bus, message.tenant, message.task)
        charged, actor = facts.charged_fact(balance, usage), message.envelope.actor
        await self._publisher.send("gateway", charged, **message.cause_fields, index="charged", actor=actor)
