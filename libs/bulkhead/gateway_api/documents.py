"""Reads of a tenant's documents."""

from typing import Annotated

from pydantic import Field

from bulkhead.gateway_api.query import PageSize, Query
from bulkhead_contracts import bounds
from bulkhead_contracts.retrieval import StoredDocument
from bulkhead_contracts.types import Contract

NAME_SCHEMA = {"minLength": 1, "maxLength": bounds.MAX_NAME_CHARS, "pattern": "^[ -~]+$"}


class DocumentPage(Contract):
    """Documents by name; `next` leads to the next page and is null on the last one."""

    documents: tuple[StoredDocument, ...]
    next: str | None = None


class DocumentListQuery(Query[DocumentPage], name="listDocuments", path="/v1/documents", action="read documents"):
    """List the tenant's documents, by name."""

    limit: PageSize = 20
    after: Annotated[str, Field(description="`next` of the previous page", json_schema_extra=NAME_SCHEMA)] = ""
