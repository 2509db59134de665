"""A read of those who may act in a tenant: people, agents and programs, without their keys."""

from typing import Annotated

from pydantic import Field

from bulkhead.gateway_api.query import OVERSEERS, Query
from bulkhead_contracts import bounds
from bulkhead_contracts.types import Contract, Count, UnixMs

MAX_KEYS_LISTED = 500


class KeyDocument(Contract):
    """An API key, of which nothing but a digest is stored. key_id: the first characters of that digest, as the key file
    has it. agent: a model writes under it. made_unix_ms: null where the key file does not say."""

    key_id: str
    person: str
    role: str
    agent: bool = False
    made_unix_ms: UnixMs | None = None


class PublisherDocument(Contract):
    """A program that submits tasks over the bus. name: of its identity there. person: under whose name its tasks
    count. agent: a model writes what it submits."""

    name: str
    person: str
    role: str
    agent: bool = False


class ListenerDocument(Contract):
    """A program that is told events over the bus. name: of its identity there. events: that it is told."""

    name: str
    events: tuple[str, ...]


class DelegateDocument(Contract):
    """A role of steps that are carried out elsewhere. to: a program outside (worker) or a remote agent (agent). name:
    of the identity or of the agent."""

    role: str
    to: str
    name: str


class IdentityPage(Contract):
    """Those who may act in the tenant: API keys by person, programs on the bus, and who carries out delegated steps.
    more_keys: how many are not listed. tokens: people with tokens of the operator's issuer may come, too, and are not
    listed. When a key was last used is stored nowhere."""

    keys: Annotated[tuple[KeyDocument, ...], Field(max_length=MAX_KEYS_LISTED)]
    more_keys: Count = 0
    tokens: bool
    publishers: Annotated[tuple[PublisherDocument, ...], Field(max_length=MAX_KEYS_LISTED)] = ()
    subscribers: Annotated[tuple[ListenerDocument, ...], Field(max_length=bounds.MAX_SUBSCRIBERS)] = ()
    delegates: Annotated[tuple[DelegateDocument, ...], Field(max_length=bounds.MAX_DELEGATED_ROLES)] = ()


class IdentityListQuery(
    Query[IdentityPage],
    name="listIdentities",
    path="/v1/identities",
    action="see keys and identities",
    allowed=OVERSEERS,
):
    """List who may act in the tenant, with which role; for operators and auditors.

    Keys are made and withdrawn by the operator of the mesh, on its machine: no request over HTTP gives anybody rights.
    """
