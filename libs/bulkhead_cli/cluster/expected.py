"""Parts that a rendered mesh has, taken from the renderer, so that a new service is expected by itself.

In: rows and policy of the renderer. Out: `Expected`.
"""

from collections.abc import Iterable
from typing import Any

from bulkhead_cli.cluster.seen import Expected


def expected() -> Expected:
    """See the module."""
    from bulkhead_infra.identity import policy
    from bulkhead_infra.kubernetes import infrastructure, network, objects, workloads
    from bulkhead_infra.services import EVERY_SERVICE

    rules = policy.load_policy(kubernetes=True)
    services = [
        one
        for name, row in EVERY_SERVICE.items()
        for one in workloads.manifests(name, row, rules.services[name], tokens=name in rules.with_token)
    ]
    servers = [
        *infrastructure.nats(),
        *infrastructure.redis(),
        *infrastructure.sentinel(),
        *infrastructure.upkeep(),
        *infrastructure.offline_model(),
    ]
    flows = {
        "nats": network.bus_flows(rules),
        "redis": network.redis_flows(rules),
        "sentinel": network.sentinel_flows(rules),
        "offline-model": network.offline_flows(rules),
    }
    standing = ("Deployment", "StatefulSet")
    return Expected(
        services=_kinds(services, standing),
        images={
            one["metadata"]["name"]: one["spec"]["template"]["spec"]["containers"][0]["image"].removeprefix(
                f"{objects.IMAGES}/"
            )
            for one in (*services, *servers)
            if one["kind"] in standing
        },
        policies=_names(network.base(rules, EVERY_SERVICE)),
        policies_of={workload: _names(network.between(of_it)) for workload, of_it in flows.items()},
    )


def _kinds(found: Iterable[dict[str, Any]], wanted: tuple[str, ...]) -> dict[str, str]:
    return {one["metadata"]["name"]: one["kind"] for one in found if one["kind"] in wanted}


def _names(found: Iterable[dict[str, Any]]) -> frozenset[str]:
    return frozenset(one["metadata"]["name"] for one in found)
