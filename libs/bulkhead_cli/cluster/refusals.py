"""Why a cluster refuses to make a pod: quota, limit range, Pod Security, an account. Pure.

In: the message of a FailedCreate event or a ReplicaFailure condition. Out: what is wrong, and what to do.
"""

import re

from bulkhead.tools.mcp_pins import clean_line
from bulkhead_cli.cluster.fields import MAX_TEXT_CHARS
from bulkhead_cli.cluster.seen import Seen

RULES: tuple[tuple[str, str, str], ...] = (
    (
        r"exceeded quota|[Ff]ailed quota",
        "a ResourceQuota refuses its pods",
        "raise the quota, or lower replicas and requests in an overlay of yours: {kubectl} describe resourcequota",
    ),
    (
        r"(?:minimum|maximum) \S+ usage per|limit to request ratio",
        "a LimitRange refuses its pods",
        "change the LimitRange, or requests and limits in an overlay of yours: {kubectl} describe limitrange",
    ),
    (
        r"violates PodSecurity",
        "Pod Security refuses its pods",
        "the rendered pods keep `restricted`: take back what your overlay, or a webhook that adds containers, changes",
    ),
    (
        r"serviceaccount \"?\S+\"? not found|error looking up service account",
        "its service account is missing",
        "apply the overlay again: the account stands beside the workload",
    ),
    (
        r"no PriorityClass with name",
        "its priority class is missing",
        "apply infra/kubernetes/base/priority.yaml, which needs rights over the whole cluster",
    ),
    (
        r"admission webhook|failed calling webhook",
        "an admission webhook refuses its pods",
        "what refuses stands in the message: change its rule, or bring it back",
    ),
)


def explained(message: str, seen: Seen) -> tuple[str, str]:
    """What is wrong with the cluster's own words, and what to do."""
    words = clean_line(message, MAX_TEXT_CHARS)
    for pattern, what, todo in RULES:
        if re.search(pattern, message[: 16 * MAX_TEXT_CHARS]):
            return f"{what}: {words}", todo.format(kubectl=seen.kubectl)
    return (
        f"its pods are not made: {words}",
        f"events say more: {seen.kubectl} get events --field-selector reason=FailedCreate",
    )
