"""A connection ends however its broker ended."""

import pytest
from nats import errors

from bulkhead.bus.jetstream.connection import Connection


@pytest.mark.parametrize("lost", [ConnectionResetError("Connection lost"), errors.ConnectionClosedError()])
async def test_a_broker_that_goes_away_while_its_client_closes_is_no_failure(lost: Exception) -> None:
    """nats-py writes what waits, and waits until it is written, before it closes."""
    connection = Connection("nats://127.0.0.1:1")

    async def close() -> None:
        raise lost

    connection.nc.close = close  # type: ignore[method-assign]
    await connection.close()
    assert await connection.closed == "closed by this process"
