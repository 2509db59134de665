"""Attribution of a call's arguments, as the executor believes it.

In: a call as a worker relays it, and its tenant and task. Out: the attribution that the model gateway signed for this
tool with exactly these arguments in this task; None for anything else, which vouches for nothing.
"""

import hashlib

import rfc8785

from bulkhead.flow import bounded
from bulkhead.grants import Verifier
from bulkhead_contracts.provenance import Attribution
from bulkhead_contracts.tool import ToolCallRequested

OBSERVER = "model_gateway"
"""The one service that sees both the context and the call that a model made of it."""


def verified_attribution(request: ToolCallRequested, tenant: str, task: str, verifier: Verifier) -> Attribution | None:
    """The attribution of a call, when it is of this very call."""
    attribution = request.attribution
    if attribution is None or attribution.observed_by != OBSERVER or attribution.tool != request.tool:
        return None
    if attribution.arguments_sha256 != arguments_sha256(request.arguments_json):
        return None
    return attribution if verifier.verify_attribution(attribution, tenant, task) else None


def arguments_sha256(arguments_json: str) -> str | None:
    """The digest of a call's arguments, however they are written; None for what has no canonical form (RFC 8785): a key
    that stands twice, a number beyond what every reader holds exactly, half a surrogate pair."""
    try:
        arguments = bounded.load_json(arguments_json or "{}", once=True)
        return hashlib.sha256(rfc8785.dumps(arguments)).hexdigest() if isinstance(arguments, dict) else None
    except ValueError:
        return None
