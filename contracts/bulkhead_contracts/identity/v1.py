"""Logins to the broker by workload identity: who was let in, who was not, and why."""

from typing import Annotated

from pydantic import Field

from bulkhead_contracts import bounds

from ..types import Body, Count, Reason, Tag, UnixMs

LOGINS_BOOK = "logins"
"""Stands for a task in the subject of all facts about logins."""
Told = Annotated[str, Field(max_length=bounds.MAX_LOGIN_WORD_CHARS)]
"""As a token, a client or the broker says it, cut to that; "" where nobody did."""


class LoginDecided(Body, type="mesh.identity.login_decided"):
    """A client showed the broker a token and was let in, or was not. Never the token itself.

    code: of the refusal; "" where it was granted; `facts_lost`: no other fact tells of so many decisions. service,
    account: of whom the client now is. subject, token_id: `sub` and `jti` of a token whose signature is good. client,
    host: as the broker sees the client. broker: which one asked. pod: of the token's Kubernetes claims. count: equal
    decisions that this one stands for, since since_unix_ms.
    """

    granted: bool
    code: Tag = ""
    reason: Reason = ""
    service: Tag = ""
    account: Tag = ""
    subject: Told = ""
    token_id: Told = ""
    pod: Told = ""
    client: Told = ""
    host: Told = ""
    broker: Told = ""
    expires_unix_ms: UnixMs = 0
    count: Count = 1
    since_unix_ms: UnixMs = 0
    decided_unix_ms: UnixMs
