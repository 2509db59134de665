"""docker-compose.cluster.yml: what is added to docker-compose.yml for three brokers and a Redis that fails over.

In: which services there are. Out: one file at the top level, to be named after docker-compose.yml. Compose merges them:
what stands here is added, or takes the place of what stands there under the same name.
"""

from bulkhead_contracts import catalog
from bulkhead_infra.identity import policy
from bulkhead_infra.identity.policy import ReachablePlace
from bulkhead_infra.render.compose import ANCHORS, DATA, IDENTITY, render_healthcheck, render_image

FILE = "docker-compose.cluster.yml"
BROKERS = ("nats", "nats-2", "nats-3")
REDIS = ("redis", "redis-2")
SENTINEL, SENTINELS, SENTINEL_PORT = "sentinel", 3, 26379
HEAD = """\
# Rendered by `make render`, beside docker-compose.yml. Do not edit. Manual: docs/how-to/containers.md, A cluster.
#
#   export COMPOSE_FILE=docker-compose.yml:docker-compose.cluster.yml
#   docker-compose --profile core up --detach
#
# Three brokers hold every stream three times: one may be lost with its disk, and nothing that was acknowledged is. They
# let each other in by certificates of this mesh's CA. Redis has a replica, and three sentinels make it the master when
# the master is gone. On one machine that is a rehearsal; what it rehearses is the same on three.

"""


def files() -> dict[str, str]:
    url = ",".join(f"tls://{name}:4222" for name in BROKERS)
    text = HEAD + ANCHORS + "services:\n"
    text += f"""\
  provision-keys:
    environment:
      BULKHEAD_BROKERS: {",".join(BROKERS)}
      BULKHEAD_SENTINELS: {SENTINEL}:{SENTINEL_PORT}/mesh

  provision-streams:
    environment: {{BULKHEAD_NATS_URL: "{url}", BULKHEAD_REPLICAS: "{len(BROKERS)}"}}
    depends_on:
{_healthy_dependencies(BROKERS[1:])}

  upkeep:
    environment: {{BULKHEAD_NATS_URL: "{url}", BULKHEAD_REPLICAS: "{len(BROKERS)}"}}

"""
    text += "\n".join(
        (
            _render_first_broker(BROKERS[0]),
            *map(_render_broker, BROKERS[1:]),
            _render_redis(),
            _render_sentinel(),
            *_render_services(url),
        )
    )
    volumes = [*map(_store_volume, BROKERS), "data_redis_2"]
    return {FILE: text + "\nvolumes:\n" + "".join(f"  {name}: {{}}\n" for name in volumes)}


def _render_first_broker(name: str) -> str:
    return f"""\
  {name}:
    environment: {_broker_environment(name)}
    # Not the volume of a broker alone, whose streams a cluster would not take for its own.
    volumes: ["{_store_mount(name)}"]
"""


def _render_broker(name: str) -> str:
    return f"""\
  {name}:
    <<: *service
{render_image("nats")}
    mem_limit: 1g
    stop_grace_period: 20s
    networks: [bus, bus-clients, bus-doors]
    environment: {_broker_environment(name)}
    volumes: ["keys_nats:{IDENTITY}:ro", "{_store_mount(name)}"]
{render_healthcheck("nats")}
    depends_on:
      provision-keys: {{condition: service_completed_successfully}}
"""


def _broker_environment(name: str) -> str:
    return f'{{BULKHEAD_BROKER: {name}, BULKHEAD_BROKERS: "{",".join(BROKERS)}"}}'


def _store_mount(name: str) -> str:
    return f"{_store_volume(name)}:{DATA}"


def _store_volume(name: str) -> str:
    return f"data_nats_{BROKERS.index(name) + 1}_of_{len(BROKERS)}"


def _render_redis() -> str:
    first, second = REDIS
    return f"""\
  {first}:
    command: [server, {first}]

  {second}:
    <<: *service
{render_image("redis")}
    command: [server, {second}]
    mem_limit: 512m
    networks: [redis]
    volumes: ["keys_redis:{IDENTITY}:ro", "data_redis_2:{DATA}"]
{render_healthcheck("redis")}
    depends_on:
      provision-keys: {{condition: service_completed_successfully}}
"""


def _render_sentinel() -> str:
    return f"""\
  {SENTINEL}:
    <<: *service
{render_image("redis")}
    command: [sentinel]
    scale: {SENTINELS}
    mem_limit: 64m
    networks: [redis]
    volumes: ["keys_redis:{IDENTITY}:ro"]
{render_healthcheck("sentinel")}
    depends_on:
{_healthy_dependencies(REDIS)}
"""


def _render_services(url: str) -> list[str]:
    parts, rules = [], policy.load_policy()
    for name in catalog.SERVICES:
        text = f'  {name}:\n    environment: {{BULKHEAD_NATS_URL: "{url}"}}\n'
        if ReachablePlace.REDIS in rules.services[name].reaches:
            text += f"    depends_on:\n{_healthy_dependencies((SENTINEL,))}\n"
        parts.append(text)
    return parts


def _healthy_dependencies(names: tuple[str, ...]) -> str:
    return "\n".join(f"      {name}: {{condition: service_healthy}}" for name in names)
