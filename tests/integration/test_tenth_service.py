"""A tenth service is a folder, catalog rows, a row in services.yaml and a row in policy.yaml, and nothing else.

In: a copy of the tree with the files of `tenth_service/` and these four edits. Out: everything else follows: rendered
files, the memory mesh, processes on a real broker, the simulation; and what is missing is named.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bulkhead_infra.render import agreement
from bulkhead_infra.services import KINDS, ServicesError, load_services
from tests.paths import ROOT

OVERLAY = Path(__file__).with_name("tenth_service")
COPIED = ("contracts", "libs", "services", "infra", "cli", "tests/simulation", "tests/integration/tenth_service")
ROW = "  echo: {kind: doer, drain: 3}\n"
ECHO = "services/bulkhead_services/echo"
RIGHTS = "  echo: {uses: [inbox, records, control_read, dead_letters_write]}\n"
EDITS = {
    agreement.CATALOG: (
        ("from .types import Body\n", "from . import echo\nfrom .types import Body\n"),
        ("DOERS = (", 'DOERS = ("echo", '),
        (
            "ROWS: tuple[Row, ...] = (\n",
            "ROWS: tuple[Row, ...] = (\n"
            '    Row(echo.EchoRequested, _edges_to("echo", "gateway"), "echo"),\n'
            '    Row(echo.EchoReplied, _edges_from("echo", "gateway"), "echo"),\n',
        ),
    ),
    agreement.ROWS: (("services:\n", f"services:\n{ROW}"),),
    agreement.POLICY: (("services:\n", f"services:\n{RIGHTS}"),),
}
LOOK = """
import sys
from bulkhead_infra.capacity import FULL, unmeasured_services
from bulkhead_infra.docker import image_contents as contents
from bulkhead_infra.render.__main__ import main
print(contents.IMAGES["echo"].code[-1], contents.KEY_OWNERS[0], unmeasured_services(FULL))
sys.argv = ["render", "--check"]
sys.exit(main())
"""
SIMULATE = """
import sys
from tests.simulation.__main__ import main
from tests.simulation.scenario import scenario
print("echo:", scenario(1).replicas["echo"], "replicas")
sys.argv = ["simulation", "--seeds", "1-1", "--jobs", "1"]
sys.exit(main())
"""
TIMEOUT_S = 180
RUNBOOKS = "docs/how-to/runbooks.md"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The copy with the tenth service, rendered."""
    tree = tmp_path_factory.mktemp("tree")
    for part in COPIED:
        shutil.copytree(ROOT / part, tree / part)
    (tree / RUNBOOKS).parent.mkdir(parents=True, exist_ok=True)
    for file in ("pyproject.toml", "requirements.lock", "docker-compose.yml", "docker-compose.cluster.yml", RUNBOOKS):
        shutil.copy2(ROOT / file, tree / file)
    for part in ("services", "contracts"):
        shutil.copytree(OVERLAY / part, tree / part, dirs_exist_ok=True)
    for file, edits in EDITS.items():
        text = (tree / file).read_text()
        for before, after in edits:
            assert len(re.findall(f"^{re.escape(before)}", text, re.M)) == 1, f"{file} holds {before!r} once"
            text = re.sub(f"^{re.escape(before)}", after.replace("\\", r"\\"), text, flags=re.M)
        (tree / file).write_text(text)
    said = _run(tree, "-m", "bulkhead_infra.render")
    assert "written: docker-compose.yml" in said
    return tree


def _run(tree: Path, *arguments: str) -> str:
    path = os.pathsep.join(str(tree / part) for part in ("", "contracts", "libs", "services", "infra", "cli"))
    environ = {name: value for name, value in os.environ.items() if not name.startswith("BULKHEAD_")}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=tree,
        env={**environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_everything_that_is_rendered_has_it(tree: Path) -> None:
    said = _run(tree, "-c", LOOK)
    compose = yaml.safe_load((tree / "docker-compose.yml").read_text())
    assert compose["services"]["echo"]["environment"]["BULKHEAD_SHARDS"] == "${BULKHEAD_SHARDS_ECHO:-1}"
    assert "keys_echo" in compose["volumes"] and "keys_echo:/bulkhead/keys/echo" in str(compose["services"])
    assert "echo:" in (tree / "docker-compose.cluster.yml").read_text()
    assert "echo" in json.loads((tree / "infra/bulkhead_infra/docker/services.json").read_text())["everywhere"]
    assert "- from gateway: `mesh.echo.req" in (tree / ECHO / "README.md").read_text()
    assert said.splitlines()[0] == "services/bulkhead_services/echo echo ['echo']"


def test_it_answers_in_the_memory_mesh_beside_all_others(tree: Path, tmp_path: Path) -> None:
    said = _run(tree, "tests/integration/tenth_service/ask_in_memory.py", str(tmp_path))
    assert said.splitlines()[-1] == "12 services, 12 run; heard: hello"


def test_it_answers_as_a_process_on_a_real_broker(tree: Path, tmp_path: Path) -> None:
    said = _run(tree, "tests/integration/tenth_service/ask_a_process.py", str(tmp_path / "mesh"))
    assert "'echo-0'" in said and "; heard: hello\n" in said


def test_the_simulation_starts_it(tree: Path) -> None:
    said = _run(tree, "-c", SIMULATE)
    assert re.search(r"^echo: [1-3] replicas$", said, re.M) and " 0 failed" in said


@pytest.mark.parametrize("place", [*EDITS, ECHO])
def test_a_place_that_lacks_it_is_named(tree: Path, tmp_path: Path, place: str) -> None:
    for file in (agreement.ROWS, agreement.POLICY):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2((ROOT if file == place else tree) / file, tmp_path / file)
    shutil.copytree(tree / "services", tmp_path / "services")
    kinds = dict(KINDS)
    if place != agreement.CATALOG:
        kinds["doer"] = ("echo", *KINDS["doer"])
    if place == ECHO:
        shutil.rmtree(tmp_path / place)
    (line,) = agreement.find_disagreements(tmp_path, kinds)
    others = {*EDITS, ECHO} - {place}
    assert line.startswith(f"{place} lacks echo: add ")
    assert set(line.rpartition(" from ")[2].split(", ")) == others


def test_places_of_this_tree_agree() -> None:
    assert agreement.find_disagreements(ROOT) == []


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("  rag:\n", "  rug:\n", "services.rag: the row is missing; write `rag: {kind: doer, drain: 3}`"),
        ("services:\n", f"services:\n{ROW}", "services.echo.kind: the catalog has no doer of this name; add it to"),
        ("    port: 8080\n", "", "services.gateway: `port` and `http` belong together; write `port: 8080`"),
        ("[redis]", "[radis]", "services.budget.environment.0: Input should be 'http', 'callers'"),
        ("    memory_mib: 1280", "    memory: 1280", "services.rag.memory: unknown field; did you mean memory_mib?"),
        ("environment: [http,", "environment: [", "services.gateway: `port` and `http` belong together"),
    ],
)
def test_a_row_that_does_not_fit_is_named_with_what_to_write(
    tmp_path: Path, before: str, after: str, said: str
) -> None:
    text = (ROOT / agreement.ROWS).read_text()
    assert before in text
    (tmp_path / "services.yaml").write_text(text.replace(before, after))
    with pytest.raises(ServicesError) as caught:
        load_services(tmp_path / "services.yaml")
    assert said in str(caught.value)
