"""A service that says two things under one message id hides one of them from the journal: that is seen live."""

from pathlib import Path

from bulkhead.bus.jetstream.bus import JetStreamBus
from bulkhead.runtime.decider.history import at_its_source
from bulkhead_contracts import catalog, subjects
from bulkhead_infra.identity import keys
from bulkhead_services.budget.watch.journal_gaps import JournalGap, JournalGaps
from tests.eventually import until
from tests.integration.permissions.broker import running

HEADERS = {"ce-type": "mesh.step.assigned.v1", "ce-id": "1", "ce-source": "planner"}


async def test_a_message_under_an_id_that_another_inbox_has_is_seen_to_be_lacking(tmp_path: Path) -> None:
    async with running(tmp_path) as broker:

        async def bus(name: str) -> JetStreamBus:
            seed = keys.nkey_seed(tmp_path / "identity", name)
            return await JetStreamBus.connect(broker.url, service=name, nkey_seed=seed)

        planner, budget = await bus("planner"), await bus("budget")
        gaps = JournalGaps()
        gaps.begin_at({one: await budget.last_sequence(subjects.inbox_stream(one)) for one in catalog.INBOXES})

        async def say(to: str, message_id: str) -> int:
            subject = subjects.mesh_subject("planner", to, "demo", "t1")
            return (await planner.publish(subject, b"{}", HEADERS, message_id)).sequence

        hidden, number = 0, 0
        while not hidden:
            # The journal remembers an id for 0.1 s: on a busy machine the two may come further apart.
            number += 1
            await say("gateway", f"twice-{number}")
            at = await say("worker", f"twice-{number}")
            after = await say("worker", f"after-{number}")

            async def arrived(after: int = after) -> list[int]:
                found = [
                    at_its_source(one) for one in await budget.read(subjects.JOURNAL_STREAM, "mesh.planner.worker.>")
                ]
                places = [one.sequence for one in found]
                return places if after in places else []

            places = await until(arrived, "the journal has what came after")
            hidden = at if at not in places else 0
        found = []
        for one in await budget.read(subjects.JOURNAL_STREAM, "mesh.>", limit=1_000):
            if (gap := gaps.record_message(one.subject.split(".")[2], at_its_source(one).sequence)) is not None:
                found.append(gap)
        # In a round before, it may have been the gateway's copy that came second, and is lacking as rightly.
        assert JournalGap("worker", hidden, hidden) in found and {one.inbox for one in found} <= {"worker", "gateway"}
        await planner.close()
        await budget.close()
