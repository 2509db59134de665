"""What doers settled in a mesh, by messages of their own and in their replies."""

from bulkhead.testing.mesh import MemoryMesh
from bulkhead_contracts import subjects
from bulkhead_contracts.budget import Settled
from bulkhead_services.budget.ledger.replies import BUDGET, EDGES, settlements_in


async def settlements(mesh: MemoryMesh) -> list[Settled]:
    """Each once, however often it was told."""
    by_id: dict[str, Settled] = {}
    places = [(subjects.inbox_stream(BUDGET), "mesh.*.budget.>"), *((edge.stream, edge.subject) for edge in EDGES)]
    for stream, subject in places:
        for stored in await mesh.messages(stream, subject):
            for settlement in settlements_in(stored):
                assert isinstance(settlement.body, Settled)
                by_id.setdefault(settlement.body.reservation_id, settlement.body)
    return list(by_id.values())
