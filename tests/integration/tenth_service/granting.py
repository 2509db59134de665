"""The grant of a task, for requests that a test sends in the gateway's name."""

from bulkhead.runtime.context import Context
from bulkhead_contracts.grant import TaskGrant
from bulkhead_contracts.task import TaskLimits


def grant(signer: Context, task: str) -> str:
    """A token of the signer."""
    return signer.signer.sign_grant(
        TaskGrant(
            tenant="demo",
            task=task,
            actor="ann",
            tools=(),
            document_scopes=("default",),
            limits=TaskLimits(cost_usd_micros=500_000),
            day_cost_usd_micros=10**9,
            day_tokens=10**9,
            expires_unix_ms=signer.clock() + 600_000,
        )
    )
