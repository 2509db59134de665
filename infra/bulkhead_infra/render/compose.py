"""docker-compose.yml from the rows of services.yaml and policy.yaml, the catalog, and which images there are.

In: a Policy, SERVICES. Out: one file at the top level. Networks and volumes follow from `reaches`: a place that a
service may not reach is on no network of its. Compose 1.29 and v2 both read it.
"""

from collections.abc import Iterable, Iterator

from bulkhead_contracts import catalog
from bulkhead_infra.composition import ContainerPaths, container_variables, newest_logic
from bulkhead_infra.docker.image_contents import IMAGES, OTHER_OWNERS
from bulkhead_infra.identity import policy
from bulkhead_infra.identity.policy import ReachablePlace, ServicePolicy
from bulkhead_infra.offline_model import MODEL_NAME
from bulkhead_infra.services import SERVICES, SHARED_MEMORY_MIB, ServiceDefinition, Setting, port_variable

FILE = "docker-compose.yml"
IDENTITY, DATA = "/bulkhead/identity", "/bulkhead/data"
MODEL_PORT = 8000
PATHS = ContainerPaths(IDENTITY, f"{IDENTITY}/api_keys.json", "/bulkhead/tenants.yaml", "/bulkhead/policy")
CONFIG = '"${BULKHEAD_CONFIG_DIR:-./infra/bulkhead_infra/identity}:/bulkhead/config:ro"'
ANCHORS = """\
x-contained: &contained
  read_only: true
  user: "10001:10001"
  cap_drop: [ALL]
  security_opt: ["no-new-privileges:true"]
  tmpfs: ["/tmp:size=64m,mode=1777,noexec,nosuid,nodev"]
  logging: &logging
    driver: json-file
    options: {max-size: 16m, max-file: "4"}

x-service: &service
  <<: *contained
  profiles: [core]
  restart: unless-stopped
  stop_grace_period: 15s
  pids_limit: 128
  cpus: 1.0
  mem_limit: SHARED_MEMORY_MIBm
  networks: [bus]
  depends_on:
    provision-streams: {condition: service_completed_successfully}

""".replace("SHARED_MEMORY_MIB", str(SHARED_MEMORY_MIB))
"""Keys that every container has; a compose file cannot use those of another file."""
HEAD = (
    """\
# Rendered by `make render` from infra/bulkhead_infra/identity/policy.yaml and
# infra/bulkhead_infra/docker/image_contents.py. Do not edit: what is yours goes into
# docker-compose.override.yml. How to use it: docs/how-to/containers.md.
#
#   make compose-demo                                          build everything, run the demo in it, remove it again
#   docker-compose --profile core up --detach                  the mesh, on http://127.0.0.1:8080
#   docker-compose --profile core up --detach --scale worker=3
#   docker-compose --profile core --profile observability up   and a receiver of its traces
#
# Every service has a volume with its own keys and mounts no other; each reaches the broker, by TLS, and of the rest
# what policy.yaml says and nothing else. Roots are read-only, nobody is root, no capability is kept.

"""
    + ANCHORS
    + """\
x-environment: &environment
  BULKHEAD_NATS_URL: tls://nats:4222
  BULKHEAD_NATS_CA_FILE: /bulkhead/identity/ca.pem
  BULKHEAD_OTLP_ENDPOINT: ${BULKHEAD_OTLP_ENDPOINT:-}
  BULKHEAD_LOG_LEVEL: ${BULKHEAD_LOG_LEVEL:-info}
  BULKHEAD_LOG_JSON: "true"

services:
"""
)
INFRASTRUCTURE = """\
  # Makes keys, certificates, accounts and passwords; a second time changes nothing. It has no network.
  provision-keys:
    <<: *contained
{provisioner}
    profiles: [core]
    command: [keys]
    network_mode: none
    healthcheck: {{disable: true}}
    environment:
      BULKHEAD_DURABILITY: ${{BULKHEAD_DURABILITY:-power}}
      BULKHEAD_STORE_GIB: ${{BULKHEAD_STORE_GIB:-}}
      BULKHEAD_BROKER_NAMES: ${{BULKHEAD_BROKER_NAMES:-}}
{shards}
    volumes:
      - {config}
{keys}

  # Makes streams and durables, under a key that no other container has.
  provision-streams:
    <<: *contained
{provisioner}
    profiles: [core]
    command: [streams]
    networks: [bus]
    healthcheck: {{disable: true}}
    environment:
      <<: *environment
      BULKHEAD_STORE_GIB: ${{BULKHEAD_STORE_GIB:-}}
{shards}
    volumes: ["keys_provisioner:{identity}:ro", {config}]
    depends_on:
      nats: {{condition: service_healthy}}

  # Purges ended tasks after their retention and keeps the journal whole, as `bulkhead up` does.
  upkeep:
    <<: *service
{provisioner}
    command: [upkeep]
    networks: [bus]
    healthcheck: {{disable: true}}
    environment:
      <<: *environment
      BULKHEAD_RETENTION: ${{BULKHEAD_RETENTION:-30d}}
      BULKHEAD_STORE_GIB: ${{BULKHEAD_STORE_GIB:-}}
{shards}
    volumes: ["keys_upkeep:{identity}:ro", "data_upkeep:{data}", {config}]

  nats:
    <<: *service
{nats}
    mem_limit: 1g
    stop_grace_period: 20s
    networks: [bus, bus-clients, bus-doors]
    volumes: ["keys_nats:{identity}:ro", "data_nats:{data}"]
{probe_nats}
    depends_on:
      provision-keys: {{condition: service_completed_successfully}}

  redis:
    <<: *service
{redis}
    mem_limit: 512m
    networks: [redis]
    volumes: ["keys_redis:{identity}:ro", "data_redis:{data}"]
{probe_redis}
    depends_on:
      provision-keys: {{condition: service_completed_successfully}}

  # Rule-based and deterministic, no LLM. Idle when OPENAI_BASE_URL names a real provider.
  offline-model:
    <<: *service
{offline_model}
    mem_limit: 512m
    command: [--host, 0.0.0.0, --port, "{model_port}"]
    networks: [providers]
    environment: {{BULKHEAD_PROBE_URL: "http://127.0.0.1:{model_port}/livez"}}
    depends_on: []

  # Receives traces when BULKHEAD_OTLP_ENDPOINT=http://phoenix:6006 is set. This image was never run where this file was
  # made (no registry there); the same program from PyPI was.
  phoenix:
    image: ${{BULKHEAD_PHOENIX_IMAGE:-arizephoenix/phoenix:version-11.0.0-nonroot}}
    profiles: [observability]
    restart: unless-stopped
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
    pids_limit: 128
    cpus: 1.0
    mem_limit: 1g
    logging: *logging
    networks: [bus, bus-clients, bus-doors, observability]
    ports: ["127.0.0.1:${{BULKHEAD_PHOENIX_PORT:-6006}}:6006"]

"""
NETWORKS = """\
networks:
  # Nobody listens here but the broker.
  bus: {internal: true}
  # The broker and the gateway, which listens: so that no other service can call it. The same for doors.
  bus-clients: {internal: true}
  bus-doors: {internal: true}
  redis: {internal: true}
  # The gateway, and who hands on to it what people ask.
  gateway: {internal: true}
  # These lead outside; on `observability` is nobody but the receiver of traces, for its port.
  clients: {}
  doors: {}
  observability: {}
  providers: {}
  tools: {}

"""


def files() -> dict[str, str]:
    rules = policy.load_policy()
    keys = ["all", *SERVICES, *OTHER_OWNERS]
    text = HEAD
    text += INFRASTRUCTURE.format(
        **{name: render_image(name) for name in ("provisioner", "nats", "redis", "offline_model")},
        probe_nats=render_healthcheck("nats"),
        probe_redis=render_healthcheck("redis"),
        keys="\n".join(f"      - keys_{name}:/bulkhead/keys/{name}" for name in keys),
        shards="\n".join(
            f"      {_shards_variable(name)}: ${{{_shards_variable(name)}:-1}}" for name in _sharded_services()
        ),
        identity=IDENTITY,
        config=CONFIG,
        data=DATA,
        model_port=MODEL_PORT,
    )
    text += "\n".join(_render_service(name, row, rules.services[name]) for name, row in SERVICES.items())
    volumes = [*(f"keys_{name}" for name in keys), "data_nats", "data_redis", "data_upkeep", "documents"]
    return {FILE: text + "\n" + NETWORKS + "volumes:\n" + "".join(f"  {name}: {{}}\n" for name in volumes)}


def _render_service(name: str, row: ServiceDefinition, rights: ServicePolicy) -> str:
    lines = [f"  {name}:", "    <<: *service", render_image(name)]
    if row.memory_mib != SHARED_MEMORY_MIB:
        lines.append(f"    mem_limit: {row.memory_mib}m")
    networks = _service_networks(name, rights.reaches)
    if networks != ["bus"]:
        lines.append(f"    networks: [{', '.join(networks)}]")
    lines += [
        "    environment:",
        "      <<: *environment",
        *(f"      {line}" for line in _render_environment(name, row)),
    ]
    volumes = [f"keys_{name}:{IDENTITY}:ro"]
    if ReachablePlace.DOCUMENTS in rights.reaches:
        volumes.append(f"documents:{DATA}")
    if Setting.TENANTS in row.environment:
        volumes.append(f"${{BULKHEAD_TENANTS:-./infra/bulkhead_infra/identity/tenants.yaml}}:{PATHS.tenants_file}:ro")
    if Setting.POLICY in row.environment:
        volumes.append(f"${{BULKHEAD_POLICY:-./infra/bulkhead_infra/policy}}:{PATHS.policy_dir}:ro")
    lines.append(f"    volumes: [{', '.join(f'{chr(34)}{volume}{chr(34)}' for volume in volumes)}]")
    if row.port:
        port = f"${{BULKHEAD_HTTP_BIND:-127.0.0.1}}:${{{port_variable(name)}:-{row.port}}}:{row.port}"
        lines.append(f'    ports: ["{port}"]')
    if ReachablePlace.REDIS in rights.reaches:
        lines += [
            "    depends_on:",
            "      provision-streams: {condition: service_completed_successfully}",
            "      redis: {condition: service_healthy}",
        ]
    return "\n".join(lines) + "\n"


def _sharded_services() -> list[str]:
    """Services whose inbox may have several durables."""
    return [name for name in catalog.SERVICES if name in catalog.INBOXES]


def _shards_variable(name: str) -> str:
    return f"BULKHEAD_SHARDS_{name.upper()}"


def _render_environment(name: str, row: ServiceDefinition) -> Iterable[str]:
    for setting in row.environment:
        yield from _setting_lines(setting, row)
    if name in _sharded_services():
        yield f"BULKHEAD_SHARDS: ${{{_shards_variable(name)}:-1}}"
    for knob, otherwise in row.knobs.items():
        variable = f"BULKHEAD_{knob.upper()}"
        yield f'{variable}: "${{{variable}:-{otherwise}}}"'
    if Setting.LOGIC in row.environment:
        yield f'BULKHEAD_LOGIC: "${{BULKHEAD_LOGIC:-{newest_logic()}}}"'


def _setting_lines(setting: Setting, row: ServiceDefinition) -> Iterator[str]:
    if setting is Setting.LOGIC:
        return  # After the shards.
    if setting is Setting.PROVIDER:
        yield f"OPENAI_BASE_URL: ${{OPENAI_BASE_URL:-http://offline-model:{MODEL_PORT}/v1}}"
    variables = container_variables(setting, row.port, PATHS)
    for name, value in variables.items():
        yield f'{name}: "{value}"' if value.isdigit() else f"{name}: {value}"
    if setting is Setting.PROVIDER:
        yield f"BULKHEAD_MODEL: ${{BULKHEAD_MODEL:-{MODEL_NAME}}}"


def _service_networks(name: str, reaches: frozenset[ReachablePlace]) -> list[str]:
    """The service's networks. Those that people call have each their own: none can call another, but by `gateway`."""
    own_network = ReachablePlace.CLIENTS.value if name == "gateway" else name
    bus = f"bus-{own_network}" if ReachablePlace.CLIENTS in reaches else "bus"
    reached = {
        own_network if place is ReachablePlace.CLIENTS else place.value
        for place in reaches
        if place is not ReachablePlace.DOCUMENTS
    }
    called = {ReachablePlace.GATEWAY.value} if name == "gateway" else set()
    return [bus, *sorted(reached | called)]


def render_healthcheck(name: str) -> str:
    """The health check of one of `probes.py`."""
    return f"""\
    healthcheck:
      test: [CMD, python3, -S, -P, -m, bulkhead_infra.docker.probes, {name}, --stay]
      interval: 1s
      timeout: 90s
      start_period: 60s
      retries: 10"""


def render_image(name: str) -> str:
    """image and build of one service, as it was made."""
    module = "" if name in catalog.SERVICES else f", MODULE: {IMAGES[name].module}"
    base = "BASE_IMAGE: '${BULKHEAD_BASE_IMAGE:-python:3.12-slim}'"
    return (
        f"    image: ${{BULKHEAD_IMAGES:-bulkhead}}/{name.replace('_', '-')}:${{BULKHEAD_TAG:-dev}}\n"
        "    build:\n"
        "      context: .\n"
        "      dockerfile: infra/bulkhead_infra/docker/service.Dockerfile\n"
        f"      args: {{SERVICE: {name}{module}, {base}}}"
    )
