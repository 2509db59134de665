"""How the files of remote agents and MCP servers come into containers and pods: the pages' own examples, applied."""

import re
from pathlib import PurePosixPath
from typing import Any

import yaml

from bulkhead_infra.composition import settings_of
from bulkhead_infra.render import compose
from tests.paths import ROOT
from tests.unit.infra.kubernetes.rendered import example as installation_values
from tests.unit.infra.kubernetes.rendered import named, render_chart

SERVICES, PREFIX = ("signer", "tool_executor"), "BULKHEAD_"
FILES = {"BULKHEAD_AGENTS_FILE", "BULKHEAD_MCP_FILE"}


def example(page: str) -> str:
    text = (ROOT / "docs/how-to" / page).read_text().partition("## Remote agents and MCP servers\n")[2]
    found = re.search(r"^```\w*\n(.*?)^```", text, re.M | re.S)
    assert found is not None
    return found[1]


def holds(service: str, variables: dict[str, str], mounted: set[str]) -> None:
    assert variables.keys() >= FILES, service
    assert {name.removeprefix(PREFIX).lower() for name in FILES} <= settings_of(service).model_fields.keys()
    for name in FILES:
        assert any(PurePosixPath(variables[name]).is_relative_to(path) for path in mounted), (service, name)


def test_the_override_of_compose_gives_both_services_the_files_and_the_headers_to_one() -> None:
    given: dict[str, Any] = yaml.safe_load(example("containers.md"))["services"]
    rendered = yaml.safe_load(compose.files()[compose.FILE])["services"]
    for service in SERVICES:
        assert isinstance(rendered[service]["environment"], dict)  # So that compose merges both.
        mounts = [mount.split(":") for mount in given[service]["volumes"]]
        assert all(mode == "ro" for *_, mode in mounts) and all(at == to for at, to, _ in mounts)
        holds(service, given[service]["environment"], {to for _, to, _ in mounts})
    assert given.keys() == set(SERVICES)
    assert "headers" not in str(given["signer"]) and "headers" in str(given["tool_executor"])


def test_the_values_of_kubernetes_give_both_services_the_files_and_the_headers_to_one() -> None:
    objects = render_chart(installation_values("dev") | yaml.safe_load(example("kubernetes.md")))
    for service in SERVICES:
        pod = named(objects, "Deployment", service.replace("_", "-"))["spec"]["template"]["spec"]
        [container] = pod["containers"]
        variables = {row["name"]: row["value"] for row in container["env"]}
        volumes = {row["name"]: row for row in pod["volumes"]}
        mounts = {row["name"]: row for row in container["volumeMounts"] if row["name"] in ("outside", "headers")}
        assert volumes["outside"] == {"name": "outside", "configMap": {"name": "outside"}}
        assert all(row["readOnly"] for row in mounts.values())
        holds(service, variables, {row["mountPath"] for row in mounts.values()})
        assert ("headers" in volumes) == (service == "tool_executor")
