"""Reads of writes of which nobody knows whether they were done, or nobody did until a person said so."""

from typing import Annotated, Literal, get_args

from pydantic import Field

from bulkhead.gateway_api.approvals import READERS
from bulkhead.gateway_api.query import Query, Remedy
from bulkhead_contracts.tool import WriteDoubted, WriteResolution
from bulkhead_contracts.types import Contract, Count

WriteState = Literal["uncertain", "happened", "not_happened"]
AnyWriteState = Literal["uncertain", "happened", "not_happened", "all"]
WRITE_STATES: tuple[AnyWriteState, ...] = get_args(AnyWriteState)


class WriteDocument(Contract):
    """A write that was uncertain when its call ended. resolution: what a person has said of it, and why; null while
    nobody has."""

    write_id: str
    task_id: str
    state: WriteState
    write: WriteDoubted
    resolution: WriteResolution | None = None


class WritePage(Contract):
    """Uncertain writes, the newest first. more: how many are not listed."""

    writes: Annotated[tuple[WriteDocument, ...], Field(max_length=200)]
    more: Count = 0


class WriteListQuery(
    Query[WritePage], name="listWrites", path="/v1/writes", action="read uncertain writes", allowed=READERS
):
    """List writes of which nobody knows whether they were done, the newest first."""

    state: Annotated[
        AnyWriteState, Field(description="How they stand"), Remedy(f"use one of: {', '.join(WRITE_STATES)}")
    ] = "uncertain"
    task: Annotated[str, Field(description="Only writes of this task")] = ""
