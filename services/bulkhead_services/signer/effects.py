"""The signer's edge: reads the policy once and signs what `core` grants.

In: GrantRequested (rpc, from the gateway alone). Out: GrantReplied with a token, or with the reason why not.
"""

from pathlib import Path
from typing import Any

import yaml

from bulkhead.runtime.context import Context
from bulkhead.runtime.edge.protocol import Edge, Received, RpcTable
from bulkhead.telemetry.log import Log
from bulkhead.tools import catalog, packs
from bulkhead_contracts import bounds
from bulkhead_contracts.grant import GrantReplied, GrantRequested
from bulkhead_contracts.result import Failure
from bulkhead_services.signer.core import Policies, PolicyError, decide, policies_from
from bulkhead_services.signer.settings import Settings

log = Log("signer")

MAX_TOKEN_BYTES = bounds.MAX_GRANT_TOKEN_BYTES // 2
"""A step grant carries its task grant, base64 once more, beside its own claims: both must fit one header."""


class GrantSigner(Edge):
    """The edge. It has no inbox."""

    def __init__(self, context: Context, settings: Settings) -> None:
        self._context, self._settings = context, settings
        self._policies: Policies | None = None
        self.rpc: RpcTable = {GrantRequested: self.grant}

    async def start(self) -> None:
        """Read the policy. Raises PolicyError (a ValueError) with what to do."""
        settings = self._settings
        known = {spec.name: spec for spec in (row.spec for row in catalog.rows(settings.packs))}
        available = {spec.name: spec for spec in catalog.specs(settings.configured(), settings.packs)}
        roles, skew = packs.worker_roles(settings.packs), settings.model_dump(include={"max_age_ms", "max_ahead_ms"})
        self._policies = policies_from(_read(settings.tenants_file), known, available, worker_roles=roles, **skew)
        tenants, not_configured = len(self._policies.tenants), ",".join(sorted(self._policies.unavailable))
        log.info("policy_read", tenants=tenants, tools=len(available), not_configured=not_configured)

    def ready(self) -> bool:
        """Whether the policy is read."""
        return self._policies is not None

    async def handle(self, message: Received) -> None:
        """Nothing is stored for the signer."""

    async def grant(self, message: Received) -> GrantReplied:
        """One request, one signed grant or one reason."""
        body = message.body
        assert isinstance(body, GrantRequested)
        if self._policies is None:
            failure = Failure.of("not_ready", "the signer has not read its policy yet", "submit again")
            return self._refuse(message, failure)
        decided = decide(self._policies, body, message.tenant, message.task, self._context.clock())
        if isinstance(decided, Failure):
            return self._refuse(message, decided)
        token = self._context.signer.grant(decided.grant)
        if len(token) > MAX_TOKEN_BYTES:
            what = f"the grant takes {len(token)} bytes; {MAX_TOKEN_BYTES} fit beside a step grant"
            failure = Failure.of("grant_too_large", what, "name fewer tools in the request")
            return self._refuse(message, failure)
        actor, tools = decided.grant.actor, len(decided.tools)
        log.info("granted", tenant=message.tenant, task=message.task, actor=actor, tools=tools)
        return GrantReplied(granted=True, token=token, tools=decided.tools, limits=decided.grant.limits)

    def _refuse(self, message: Received, failure: Failure) -> GrantReplied:
        tenant, task = message.tenant, message.task
        log.warning("grant_refused", tenant=tenant, task=task, code=failure.code, reason=failure.message)
        return GrantReplied(granted=False, code=failure.code, reason=failure.message, hint=failure.hint)


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text())
    except OSError as error:
        what = f"tenants file {path} cannot be read ({error.strerror})"
        raise PolicyError(f"{what}; set BULKHEAD_TENANTS_FILE") from error
    except yaml.YAMLError as error:
        raise PolicyError(f"tenants file {path} is not YAML: {error}") from error
