"""Builds the images: `python -m bulkhead_infra.docker.images [NAME...] [--revision GIT] [--json]`.

In: names (all when left out), the working tree or another revision of it, BULKHEAD_BASE_IMAGE, BULKHEAD_CA_BUNDLE, the
machine's pip configuration. Out: images `bulkhead/<name>:<tag>`, what each weighs. An unchanged image is a cache hit.
Exit codes: 0; 1 when a build fails or Docker cannot be used, with what to do.
"""

import argparse
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bulkhead_infra.docker.image_contents import IMAGES, IN_KUBERNETES, ROOT, SERVICES

IMAGE_NAMES = tuple(IMAGES)
TAG = "dev"
DOCKERFILE = "infra/bulkhead_infra/docker/service.Dockerfile"
BASE_SCRIPT = Path(__file__).with_name("base.sh")
BUILDKIT_ALWAYS = 23
"""From this version of the client on, BuildKit is a plugin of its own (buildx); before, it is inside."""
BUILD_TIMEOUT_S = 900
PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout")
"""Options of the machine's pip configuration that a build takes over to reach an index; paths mean nothing there."""


class DockerImageError(Exception):
    """An image could not be built, or Docker cannot be used; says why and what to do."""


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """One image. own_bytes: what it weighs beyond its base."""

    name: str
    tag: str
    bytes: int
    own_bytes: int


def tag_of(name: str, tag: str = "") -> str:
    """The image's name, as compose has it: BULKHEAD_IMAGES and BULKHEAD_TAG say where and which."""
    registry = os.environ.get("BULKHEAD_IMAGES", "bulkhead")
    return f"{registry}/{name.replace('_', '-')}:{tag or os.environ.get('BULKHEAD_TAG', TAG)}"


def unavailable_reason() -> str:
    """The reason why Docker cannot be used here; "" when it can."""
    try:
        docker_client()
    except DockerImageError as error:
        return str(error)
    return ""


@functools.cache
def docker_client() -> str:
    """The path of a docker client that can build with BuildKit and reaches a daemon. Raises DockerImageError."""
    folders = [*os.environ.get("PATH", os.defpath).split(os.pathsep), "/usr/bin"]
    candidates = list(dict.fromkeys(path for folder in folders if (path := shutil.which("docker", path=folder))))
    if not candidates:
        raise DockerImageError("docker is not installed: on Debian, apt-get install docker.io docker-compose")
    capable = [path for path in candidates if _has_buildkit(path)]
    if not capable:
        raise DockerImageError(f"{candidates[0]} has no BuildKit: install docker-buildx-plugin, or Debian's docker.io")
    daemon_info = run_command([capable[0], "info", "--format", "{{.ServerVersion}}"])
    if daemon_info.returncode:
        reason = daemon_info.stderr.strip().splitlines()[-1] if daemon_info.stderr.strip() else "no answer"
        raise DockerImageError(
            f"no Docker daemon answers ({reason}): start dockerd, or let this user use it (group docker)"
        )
    return capable[0]


def _has_buildkit(path: str) -> bool:
    version = run_command([path, "version", "--format", "{{.Client.Version}}"]).stdout.strip()
    first = version.split(".")[0]
    if first.isdigit() and int(first) < BUILDKIT_ALWAYS:
        return True
    return run_command([path, "buildx", "version"]).returncode == 0


def base_image() -> str:
    """BULKHEAD_BASE_IMAGE, else the one made of Debian's packages. Raises DockerImageError."""
    if configured := os.environ.get("BULKHEAD_BASE_IMAGE"):
        return configured
    done = run_command([str(BASE_SCRIPT)], environ={"DOCKER": docker_client()}, timeout_s=BUILD_TIMEOUT_S)
    if done.returncode:
        raise DockerImageError(f"no base image: {done.stderr.strip()}; or set BULKHEAD_BASE_IMAGE=python:3.12-slim")
    return done.stdout.strip()


def ensure_images(names: Iterable[str] = IMAGE_NAMES, *, tag: str = "", revision: str = "") -> dict[str, str]:
    """Build what is out of date; {name: image}. revision: of the repository, instead of the working tree. Raises
    DockerImageError."""
    base = base_image()
    with _source_tree(revision) as root, _build_secrets() as secrets:
        return {name: _build_image(name, root, base, secrets, tag, revision) for name in names}


def weigh_images(names: Iterable[str] = IMAGE_NAMES, tag: str = "") -> list[BuiltImage]:
    """Sizes of images that are built. Raises DockerImageError."""
    base = _image_bytes(base_image())
    sizes = {name: _image_bytes(tag_of(name, tag)) for name in names}
    return [BuiltImage(name, tag_of(name, tag), size, size - base) for name, size in sizes.items()]


def _build_image(name: str, root: Path, base: str, secrets: list[str], tag: str, revision: str) -> str:
    image = tag_of(name, tag)
    module, commit = IMAGES[name].module, _commit_label(revision)
    version = image.rpartition(":")[2]
    values = {"SERVICE": name, "MODULE": module, "BASE_IMAGE": base, "REVISION": commit, "VERSION": version}
    arguments = [f"--build-arg={key}={value}" for key, value in values.items()]
    options = ["--quiet", "--network=host", f"--file={root / DOCKERFILE}", f"--tag={image}", *arguments, *secrets]
    done = run_command([docker_client(), "build", *options, str(root)], {"DOCKER_BUILDKIT": "1"}, BUILD_TIMEOUT_S)
    if done.returncode:
        raise DockerImageError(f"{image} could not be built:\n{done.stderr.strip()[-4000:]}")
    return image


@contextmanager
def _source_tree(revision: str) -> Iterator[Path]:
    """The tree to build from: the working tree, or a revision unpacked beside it."""
    if not revision:
        yield ROOT
        return
    with tempfile.TemporaryDirectory(prefix="bulkhead-sources-") as folder:
        archive = Path(folder) / "tree.tar"
        done = run_command(["git", "-C", str(ROOT), "archive", "--format", "tar", "--output", str(archive), revision])
        if done.returncode:
            raise DockerImageError(f"git knows no revision {revision}: {done.stderr.strip()}")
        tree = Path(folder) / "tree"
        tree.mkdir()
        # By the system's tar: Debian 12's Python knows no filters yet.
        done = run_command(["tar", "-x", "-f", str(archive), "-C", str(tree)])
        if done.returncode:
            raise DockerImageError(f"revision {revision} could not be unpacked: {done.stderr.strip()}")
        if not (tree / DOCKERFILE).is_file():
            raise DockerImageError(f"revision {revision} has no {DOCKERFILE}: it is older than the images")
        yield tree


@contextmanager
def _build_secrets() -> Iterator[list[str]]:
    """Arguments that show the builder how this machine reaches a package index and whom it trusts; in no layer."""
    ca_bundle = os.environ.get("BULKHEAD_CA_BUNDLE", "")
    if ca_bundle and not Path(ca_bundle).is_file():
        raise DockerImageError(f"BULKHEAD_CA_BUNDLE names {ca_bundle}, which is no file: name a PEM file, or unset it")
    with tempfile.TemporaryDirectory(prefix="bulkhead-build-") as folder:
        conf = Path(folder) / "pip.conf"
        conf.touch(mode=0o600)
        conf.write_text(_pip_conf())
        arguments = ["--secret", f"id=pip.conf,src={conf}"]
        ca = ca_bundle or os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
        if ca and Path(ca).is_file():
            arguments += ["--secret", f"id=ca.pem,src={ca}"]
        yield arguments


def _pip_conf() -> str:
    listed = run_command([sys.executable, "-m", "pip", "config", "list"]).stdout
    settings: dict[str, str] = {}
    for line in listed.splitlines():
        place, _, value = line.partition("=")
        name = place.rpartition(".")[2]
        # Later lines win, and the environment's come last.
        if name in PIP_SETTINGS and "file:" not in value:
            settings[name] = value.strip("'\"")
    return "[global]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items())


def _commit_label(revision: str) -> str:
    short_commit = run_command(["git", "-C", str(ROOT), "rev-parse", "--short=12", revision or "HEAD"]).stdout.strip()
    changed = not revision and run_command(["git", "-C", str(ROOT), "status", "--porcelain"]).stdout.strip()
    return f"{short_commit or 'unknown'}{'-changed' if changed else ''}"


def _image_bytes(image: str) -> int:
    inspection = run_command([docker_client(), "image", "inspect", "--format", "{{.Size}}", image])
    if inspection.returncode:
        raise DockerImageError(f"there is no image {image}: build it with `python -m bulkhead_infra.docker.images`")
    return int(inspection.stdout)


def run_command(
    command: list[str], environ: Mapping[str, str] | None = None, timeout_s: float = 60
) -> subprocess.CompletedProcess[str]:
    full_environ = {**os.environ, **(environ or {})}
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, env=full_environ)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        raise DockerImageError(
            f"{' '.join(command[:2])} did not end within {timeout_s:g} s; look at the daemon"
        ) from error


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bulkhead_infra.docker.images", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(IMAGE_NAMES)}; all when left out")
    parser.add_argument("--tag", default="", help=f"default: BULKHEAD_TAG, else {TAG}")
    parser.add_argument("--revision", default="", help="build a git revision instead of the working tree")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    options = parser.parse_args()
    if unknown := set(options.names) - set(IMAGE_NAMES):
        parser.error(f"no such image: {', '.join(sorted(unknown))}; there are {', '.join(IMAGE_NAMES)}")
    names = options.names or IMAGE_NAMES
    try:
        ensure_images(names, tag=options.tag, revision=options.revision)
        rows = weigh_images(names, options.tag)
    except DockerImageError as error:
        print(error, file=sys.stderr)
        return 1
    if options.json:
        records = [
            {"name": built.name, "image": built.tag, "bytes": built.bytes, "own_bytes": built.own_bytes}
            for built in rows
        ]
        print(json.dumps(records, indent=1))
        return 0
    print(f"{'image':<16} {'beyond the base':>16} {'in all':>10}")
    for row in rows:
        kind = "" if row.name in (*SERVICES, *IN_KUBERNETES) else "  (infrastructure)"
        print(f"{row.name:<16} {row.own_bytes / 1e6:>13.1f} MB {row.bytes / 1e6:>7.1f} MB{kind}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
