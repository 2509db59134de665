"""The page about Kubernetes: its commands parse, what they name is rendered, figures and doctor's words are true."""

import itertools
import re
import shlex
import subprocess
from collections.abc import Iterator

import pytest

from bulkhead_infra.kubernetes import objects, overlays
from tests.paths import ROOT
from tests.unit.infra.kubernetes.rendered import Object, kustomize, overlay

PAGE = (ROOT / "docs/how-to/kubernetes.md").read_text()
MARK, GIB = "◌", 1024**3
SHORT = {"deployment": "Deployment", "statefulset": "StatefulSet", "service": "Service", "pod": "Pod"}
MADE_BY_HAND = {"registry"}


def _lines() -> Iterator[tuple[str, str]]:
    """Commands of code blocks and of the text, each with what follows it."""
    for block in re.findall(r"^```\n(.*?)^```", PAGE, re.M | re.S):
        for line in block.splitlines():
            command, _, comment = line.partition(" #")
            yield command.strip(), comment
    text = re.sub(r"^```\n.*?^```", "", PAGE, flags=re.M | re.S).replace("\n", " ")
    for match in re.finditer(r"`([^`]*kubectl [^`]+)`(.{0,3})", text):
        yield match[1], match[2]


def _calls(line: str) -> Iterator[list[str]]:
    """Calls of kubectl in a line, without what runs elsewhere: behind a pipe, in a pod, in a file."""
    for part in re.split(r" \| |; |&& ", line):
        words = shlex.split(re.split(r" -- | [<>] ", part)[0])
        if words[:1] == ["kubectl"]:
            yield words


CALLS = sorted({shlex.join(call) for line, _ in _lines() for call in _calls(line)})


def test_each_command_that_reaches_a_cluster_is_marked_as_never_run() -> None:
    unmarked = [line for line, after in _lines() if list(_calls(line)) and MARK not in after]
    assert unmarked == [] and len(CALLS) > 15


@pytest.mark.parametrize("call", CALLS)
def test_kubectl_knows_each_command_and_its_options(call: str) -> None:
    kustomize(ROOT / objects.FOLDER / "overlays" / "dev")  # Skips where kubectl is too old.
    words = shlex.split(call.replace("OVERLAY", "infra/kubernetes/overlays/dev"))
    done = subprocess.run([*words, "--help"], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert done.returncode == 0 and "Usage:" in done.stdout, done.stderr
    for option, value in itertools.pairwise(words):
        assert option not in ("-f", "-k") or value == "-" or (ROOT / value).exists(), call


def _amount(text: str) -> float:
    """An amount of a resource: `250m`, `256Mi`, `2`."""
    number, unit = re.fullmatch(r"(\d+)(m|Mi|Gi|)", str(text)).groups()
    return float(number) * {"": 1, "m": 1e-3, "Mi": 1024**2, "Gi": GIB}[unit]


def _named(call: str) -> Iterator[tuple[str, str]]:
    words = shlex.split(call)
    for place, word in enumerate(words):
        kind, _, name = word.partition("/")
        if kind in SHORT and name:
            yield SHORT[kind], name
        if word in ("exec", "secret") and place:
            rest = [one for one in words[place + 1 :] if not one.startswith("-")]
            yield ("Pod" if word == "exec" else "Secret"), rest[-1] if "docker-registry" in rest else rest[0]


@pytest.mark.parametrize("name", overlays.OVERLAYS)
def test_what_commands_name_is_rendered(name: str) -> None:
    found = overlay(name)
    there = {(one["kind"], one["metadata"]["name"]) for one in found}
    there |= {("Pod", f"{one}-0") for kind, one in there if kind == "StatefulSet"}
    there |= {("Secret", one) for one in (objects.TLS_SECRET, *MADE_BY_HAND)}
    asked = {one for call in CALLS for one in _named(call) if one[1] != "NAME"}
    assert asked <= there and {("Pod", "rag-0"), ("Pod", "nats-0"), ("Secret", objects.TLS_SECRET)} <= asked


def _selected(found: list[Object], selector: str) -> list[Object]:
    """Objects by `key=value` and `key notin (values)`; the second takes those without the key, too."""
    equal = dict(one.split("=") for one in re.findall(r"[\w./-]+=[\w-]+", selector))
    out = {key: values.split(",") for key, values in re.findall(r"([\w./-]+) notin \(([\w,-]+)\)", selector)}
    assert equal and out
    return [
        one
        for one in found
        if equal.items() <= one["metadata"].get("labels", {}).items()
        and all(one["metadata"]["labels"].get(key) not in values for key, values in out.items())
    ]


@pytest.mark.parametrize("name", overlays.OVERLAYS)
def test_a_restore_starts_brokers_and_nothing_that_makes_streams(name: str) -> None:
    (selector,) = set(re.findall(r"-l '([^']*notin[^']*)'", PAGE))
    found = {(one["kind"], one["metadata"]["name"].partition("-")[0]) for one in _selected(overlay(name), selector)}
    assert {("StatefulSet", "nats"), ("StatefulSet", "redis"), ("Service", "nats"), ("ServiceAccount", "nats")} < found
    assert {("NetworkPolicy", "default"), ("ConfigMap", "bulkhead"), ("PriorityClass", "bulkhead")} < found
    assert not {kind for kind, _ in found} & {"Job", "Deployment"} - ({"Deployment"} if name == "dev" else set())
    assert not {one for _, one in found} & {"provision", "upkeep", "rag"}


@pytest.mark.parametrize("name", overlays.OVERLAYS)
def test_a_quota_needs_what_the_page_says(name: str) -> None:
    row = next(line for line in PAGE.splitlines() if f"`{name}`" in line and line.count("|") == 7)
    told = [float(re.sub(r"[^\d.]", "", cell)) for cell in row.split("|")[2:7]]
    sums = dict.fromkeys(("pods", "requests.cpu", "limits.cpu", "limits.memory", "disk"), 0.0)
    for one in overlay(name):
        spec = one.get("spec", {})
        if one["kind"] == "PersistentVolumeClaim":
            sums["disk"] += _amount(spec["resources"]["requests"]["storage"])
        if one["kind"] not in ("Deployment", "StatefulSet", "Job"):
            continue
        count = spec.get("replicas", 1)
        sums["pods"] += count
        for claim in spec.get("volumeClaimTemplates", ()):
            sums["disk"] += count * _amount(claim["spec"]["resources"]["requests"]["storage"])
        for container in spec["template"]["spec"]["containers"]:
            for key in ("requests.cpu", "limits.cpu", "limits.memory"):
                group, resource = key.split(".")
                sums[key] += count * _amount(container["resources"][group][resource])
    sums["limits.memory"] /= GIB
    sums["disk"] /= GIB
    for said, counted in zip(told, sums.values(), strict=True):
        assert counted <= said + 1e-9 and said - counted < 0.1, (name, told, sums)


ROWS = re.findall(r"^\| [^|]+ \| (`[^|]+`) \| [^|]+ \|$", PAGE.partition("| doctor says |")[2], re.M)
SOURCE = (ROOT / "libs/bulkhead_cli/operate/doctor_cluster.py").read_text()


def test_doctor_says_what_the_page_quotes() -> None:
    quoted = [word for row in ROWS for word in re.findall(r"`([^`]+)`", row)]
    assert len(quoted) > 10
    assert [word for word in quoted if word not in SOURCE] == []
