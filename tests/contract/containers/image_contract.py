"""The contract between a container in the manifests and its image: user, port, command, environment, files, probes.

In: pods with the files of their volumes; the Dockerfile and the code that the image has. Out: one line per breach,
under the name of the check that found it.
"""

import contextlib
import io
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from unittest.mock import patch

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from bulkhead.runtime.process import health_endpoints
from bulkhead.runtime.settings import FILE_SUFFIX, ServiceSettings
from bulkhead_contracts.catalog import DECIDERS
from bulkhead_infra.composition import settings_of
from bulkhead_infra.docker import images, probes, redis_container
from bulkhead_infra.docker.image_contents import IMAGES, ROOT
from bulkhead_infra.nats.configuration import BROKER_NAME_VARIABLE
from bulkhead_infra.offline_model.settings import parse_settings
from bulkhead_infra.services import EVERY_SERVICE
from tests.contract.containers.pods import Container, Object, Pod

PREFIX = "BULKHEAD_"
LOCAL = ("127.0.0.1", "localhost")
EVERYWHERE = "0.0.0.0"
IDENTITY, DATA = Path("/bulkhead/identity"), Path("/bulkhead/data")
CLUSTER_ONLY = ("nats", "routes")
"""The port of routes between brokers: a broker alone does not listen there, and no policy opens it then."""
READ_BY: Mapping[str, frozenset[str]] = {
    "nats": frozenset({BROKER_NAME_VARIABLE}),
    "redis": frozenset({redis_container.SERVERS_VARIABLE, "POD_NAME"}),
    "offline_model": frozenset(),
}
"""Variables of images whose programs have no settings class; of the provisioner its source tells."""
NEEDED: Mapping[str, frozenset[str]] = {
    "nats": frozenset({BROKER_NAME_VARIABLE}),
    "provisioner": frozenset(
        f"{PREFIX}{name}"
        for name in ("NATS_URL", "REPLICAS", "STORE_GIB", "RANKED", *(f"SHARDS_{one.upper()}" for one in DECIDERS))
    ),
}
KEYS_READ: Mapping[str, tuple[str, ...]] = {
    "streams": ("provisioner.nkey", "ca.pem"),
    "upkeep": ("provisioner.nkey", "operator.nkey", "ca.pem"),
}
HTTP_PATHS: Mapping[str, frozenset[str]] = {"nats": frozenset({"/healthz"}), "offline_model": frozenset({"/livez"})}
NAMED = re.compile(r"""["'](BULKHEAD_[A-Z_]+)["']""")
PATH_IN_CONF = re.compile(r'(?:_file: |include )"([^"]+)"')
ADDRESS = re.compile(r"\w+://(?:[^@/\s]*@)?([a-z0-9-]+(?:\.[a-z0-9-]+)?):(\d+)")
"""An address of a Service or of a pod behind it, in a variable or a file."""
PORT_IN_CONF = re.compile(r'(?:listen|http): "([0-9.]+):(\d+)"')


@dataclass(frozen=True)
class Image:
    """What the Dockerfile gives an image, by the name of its row; test_images.py asks Docker for the same."""

    name: str
    user: str
    environment: Mapping[str, str]

    @classmethod
    def named(cls, name: str) -> "Image":
        text = (ROOT / images.DOCKERFILE).read_text().replace("\\\n", " ")
        user = re.findall(r"^USER (\S+)$", text, re.MULTILINE)[-1]
        pairs = re.findall(r"(\w+)=(\S+)", " ".join(re.findall(r"^ENV (.*)$", text, re.MULTILINE)))
        return cls(name, user, {key: value.replace("${MODULE}", IMAGES[name].module) for key, value in pairs})


@dataclass(frozen=True)
class Fitted:
    """One container with what it has to fit. disk: the files of its volumes, below a folder of this machine."""

    pod: Pod
    container: Container
    image: Image
    disk: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**self.image.environment, **self.container.environment}

    def here(self, path: str | Path) -> Path:
        """A path of the container on this machine."""
        return self.disk / str(path).lstrip("/")

    def has_file(self, path: str | Path) -> bool:
        """Whether the manifests put a file there."""
        return any(Path(path) == Path(mount.path, name) for mount in self.container.mounts for name in mount.files)

    @cached_property
    def settings(self) -> ServiceSettings:
        """Of a service, as it reads them at its start. Raises ValueError."""
        moved = {
            name: str(self.here(value))
            if any(value.startswith(mount.path) for mount in self.container.mounts)
            else value
            for name, value in self.environment.items()
        }
        with patch.dict(os.environ, moved, clear=True):
            return settings_of(self.image.name)()


def fitted(pods: list[Pod], folder: Path) -> list[Fitted]:
    """Containers with the files of their volumes. folder: these are written there."""
    found = []
    for pod in pods:
        for container in pod.containers:
            disk = folder / pod.name / container.name
            for mount in container.mounts:
                for name, content in mount.files.items():
                    place = disk / mount.path.lstrip("/") / name
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.write_bytes(content)
            image = re.split("[@:]", container.image.rpartition("/")[2])[0].replace("-", "_")
            found.append(Fitted(pod, container, Image.named(image), disk))
    return found


Found = Iterator[str]


def _user(one: Fitted) -> Found:
    if one.container.user != one.image.user:
        yield f"runs as {one.container.user}, and the folders of its image belong to {one.image.user}"


def _command(one: Fitted) -> Found:
    args = list(one.container.args or ())
    if one.container.command is not None:
        yield "`command` takes the place of the image's entry point, which names the instance: use `args`"
    if one.image.name == "redis" and args not in ([], ["sentinel"], ["server", one.pod.name + ".redis"]):
        yield f"redis_container takes no arguments {args}"
    elif one.image.name == "provisioner" and (args[:1] not in ([key] for key in KEYS_READ) or len(args) != 1):
        yield f"provisioner has no command {args} that a pod may run"
    elif one.image.name == "offline_model":
        with contextlib.redirect_stderr(io.StringIO()) as said:
            try:
                parse_settings(args)
            except SystemExit:
                yield f"offline_model does not take {args}: {said.getvalue().splitlines()[-1]}"
    elif one.image.name in {*EVERY_SERVICE, "nats"} and args:
        yield f"its program takes no arguments, and has {args}"


def _ports(one: Fitted) -> Found:
    declared, listens = dict(one.container.ports), _listens(one)
    if one.image.name == "nats" and CLUSTER_ONLY[1] not in listens:
        declared.pop(CLUSTER_ONLY[1], None)
    for name, (host, number) in listens.items():
        if declared.get(name) != number:
            yield f"its program listens on {number} ({name}), and the manifest says {declared.get(name)}"
        if host != EVERYWHERE:
            yield f"its program listens at {host} alone ({name}): probes and others come from outside"
    for name in set(declared) - set(listens):
        yield f"its program does not listen on {declared[name]} ({name})"


def _listens(one: Fitted) -> dict[str, tuple[str, int]]:
    """By the name of the port: where its program listens."""
    match one.image.name:
        case "nats":
            places = PORT_IN_CONF.findall(one.here(IDENTITY / "nats-server.conf").read_text())
            return {
                name: (host, int(port))
                for name, (host, port) in zip(("nats", "monitor", "routes"), places, strict=False)
            }
        case "redis" if one.container.args == ["sentinel"]:
            return {"sentinel": (EVERYWHERE, redis_container.SENTINEL_PORT)}
        case "redis":
            text = one.here(redis_container.CONFIGURATION).read_text()
            [host], [port] = re.findall(r"^bind (\S+)$", text, re.M), re.findall(r"^port (\d+)$", text, re.M)
            return {"redis": (host, int(port))}
        case "offline_model":
            given = parse_settings(one.container.args or [])
            return {"http": (given.host, given.port)}
        case "provisioner":
            return {}
    settings = one.settings
    found = {"health": (settings.health_host, settings.health_port)}
    if "http_port" in type(settings).model_fields:
        found["http"] = (getattr(settings, "http_host"), getattr(settings, "http_port"))  # noqa: B009
    return found


def known_variables(settings: type[BaseSettings]) -> frozenset[str]:
    """Names of variables that a settings class reads."""
    names = {name for key, field in settings.model_fields.items() for name in _names(key, field)}
    more = {f"{name}{FILE_SUFFIX}" for name in names}
    return frozenset(names | more)


def _names(key: str, field: FieldInfo) -> list[str]:
    alias = field.validation_alias
    given = (
        [alias] if isinstance(alias, str) else [one for one in getattr(alias, "choices", ()) if isinstance(one, str)]
    )
    return [one for one in given if one.isupper()] or [f"{PREFIX}{key.upper()}"]


def _known(name: str) -> frozenset[str]:
    if name in EVERY_SERVICE:
        return known_variables(settings_of(name))
    if name != "provisioner":
        return READ_BY[name]
    sources = [ROOT / part for part in IMAGES[name].code if part.endswith(("provisioner.py", "upkeep.py"))]
    literal = {found for path in sources for found in NAMED.findall(path.read_text())}
    shards = {f"BULKHEAD_SHARDS_{service.upper()}" for service in EVERY_SERVICE}
    return frozenset(literal | shards)


def _unknown(one: Fitted) -> Found:
    for name in sorted(set(one.container.environment) - _known(one.image.name)):
        yield f"its program knows no variable {name}"


def _settings(one: Fitted) -> Found:
    """A service starts with what it is given."""
    if one.image.name in EVERY_SERVICE:
        try:
            yield from one.settings.start_problems()
        except ValueError as error:
            yield f"its settings are refused: {error}"


def _missing(one: Fitted) -> Found:
    """No default is kept that is for one machine."""
    for name in sorted(NEEDED.get(one.image.name, frozenset()) - set(one.container.environment)):
        yield f"{name} is missing: its default is for one machine"
    if one.image.name not in EVERY_SERVICE:
        return
    settings = one.settings
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        text = str(value.get_secret_value() if hasattr(value, "get_secret_value") else value)
        elsewhere = isinstance(value, Path) and not value.is_relative_to(one.disk) and value not in (DATA, IDENTITY)
        if elsewhere or any(word in text for word in LOCAL):
            yield f"{_names(name, field)[0]} is missing: {text} is for one machine"


def _files(one: Fitted) -> Found:
    """Files lie where the code reads them, and nothing is written but where it writes."""
    for path in read_at_start(one):
        if not one.has_file(path):
            yield f"{path} is in none of its volumes"
    for mount in one.container.mounts:
        if not mount.read_only and mount.path not in (str(DATA), "/tmp"):
            yield f"{mount.path} may be written, and no code writes there"
    if one.image.name in {"nats", "redis", "rag"} and one.container.args != ["sentinel"] and not _writable(one, DATA):
        yield f"{DATA} is no volume that it may write to, and it keeps what it has there"


def _writable(one: Fitted, path: Path) -> bool:
    return any(mount.path == str(path) and not mount.read_only for mount in one.container.mounts)


def read_at_start(one: Fitted) -> list[Path]:
    """Files that its program opens at its start."""
    match one.image.name:
        case "nats":
            conf = IDENTITY / "nats-server.conf"
            texts = [one.here(path).read_text() for path in (conf, IDENTITY / "accounts.conf") if one.has_file(path)]
            return [conf, *(IDENTITY / path for text in texts for path in PATH_IN_CONF.findall(text))]
        case "redis":
            return [redis_container.CONFIGURATION]
        case "provisioner":
            return [IDENTITY / name for name in KEYS_READ[(one.container.args or [""])[0]]]
        case "offline_model":
            return []
    name, given = one.image.name, one.environment
    own = [IDENTITY / f"{name}.sign", IDENTITY / "public.json"]
    if name == "identity":
        own += [IDENTITY / "identity.issuer", IDENTITY / "identity.xkey"]
    if f"{PREFIX}NATS_TOKEN_FILE" not in given:
        own.append(IDENTITY / f"{name}.nkey")
    own += [Path(value) for key, value in given.items() if key.endswith(FILE_SUFFIX) and value]
    if folder := given.get(f"{PREFIX}POLICY_DIR"):
        own.append(Path(folder) / "default.cedar")
    return own


def _probes(one: Fitted) -> Found:
    """A probe asks what its program answers."""
    for kind, probe in one.container.probes.items():
        if why := _unanswered(one, probe):
            yield f"{kind}: {why}"


def _unanswered(one: Fitted, probe: Object) -> str:
    listens = {number: name for name, (_, number) in _listens(one).items()}
    if "exec" in probe:
        words = list(probe["exec"]["command"])
        module = words[words.index("-m") + 1] if "-m" in words[:-1] else ""
        path = f"infra/{module.replace('.', '/')}.py"
        if path not in IMAGES[one.image.name].code:
            return f"its image has no program {module or words}"
        return "" if words[words.index("-m") + 2] in probes.PROBES else f"{module} does not know {words[-1]}"
    asked = probe.get("httpGet") or probe["tcpSocket"]
    port = one.container.port(asked["port"])
    if port not in listens:
        return f"nobody listens on {port}"
    if "httpGet" not in probe:
        return ""
    known = HTTP_PATHS.get(one.image.name, health_endpoints_paths())
    path = asked["path"].partition("?")[0]
    if path not in known:
        return f"nobody answers {path}; there are {', '.join(sorted(known))}"
    right = {"nats": "monitor", "offline_model": "http"}.get(one.image.name, "health")
    return "" if listens[port] == right else f"{path} is answered on the port {right}, not {listens[port]}"


def health_endpoints_paths() -> frozenset[str]:
    """Paths that the health endpoints of a service know, by their source."""
    text = Path(health_endpoints.__file__).read_text()
    return frozenset(re.findall(r'path == "(/\w+z)"', text))


Check = Callable[[Fitted], Found]
BEFORE: Mapping[str, Check] = {"user": _user, "command": _command, "settings": _settings}
"""With a breach of one of these a program does not run: there is nothing else to be held to."""
CHECKS: Mapping[str, Check] = {
    "ports": _ports,
    "unknown variable": _unknown,
    "missing variable": _missing,
    "files": _files,
    "probes": _probes,
}


def breaches(found: list[Fitted]) -> list[str]:
    """All, each as `check: container: problem`."""
    answered = {(name, port) for one in found for name in one.pod.names for port in one.container.ports.values()}
    return [line for one in found for line in _of(one, BEFORE) or _of(one, CHECKS)] + [
        f"addresses: {one.container.name}: nobody answers {host}:{port}"
        for one in found
        for host, port in _addresses(one)
        if (host, int(port)) not in answered
    ]


def _addresses(one: Fitted) -> list[tuple[str, str]]:
    """Hosts and ports of the mesh that its variables, and the files that these name, hold."""
    files = [one.here(path) for key, path in one.environment.items() if key.endswith(FILE_SUFFIX)]
    texts = [*one.container.environment.values(), *(path.read_text() for path in files if path.is_file())]
    return [place for text in texts for place in ADDRESS.findall(text) if place[0] not in LOCAL]


def _of(one: Fitted, checks: Mapping[str, Check]) -> list[str]:
    return [f"{check}: {one.container.name}: {problem}" for check, look in checks.items() for problem in look(one)]
