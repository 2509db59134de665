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

ALL = tuple(IMAGES)
TAG = "dev"
DOCKERFILE = "infra/bulkhead_infra/docker/service.Dockerfile"
BASE_SCRIPT = Path(__file__).with_name("base.sh")
BUILDKIT_ALWAYS = 23
"""From this version of the client on, BuildKit is a plugin of its own (buildx); before, it is inside."""
BUILD_TIMEOUT_S = 900
PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout")
"""Options of the machine's pip configuration that a build takes over to reach an index; paths mean nothing there."""


class ImageError(Exception):
    """An image could not be built, or Docker cannot be used; says why and what to do."""


@dataclass(frozen=True, slots=True)
class Built:
    """One image. own_bytes: what it weighs beyond its base."""

    name: str
    tag: str
    bytes: int
    own_bytes: int


def tag_of(name: str, tag: str = "") -> str:
    """The image's name, as compose has it: BULKHEAD_IMAGES and BULKHEAD_TAG say where and which."""
    registry = os.environ.get("BULKHEAD_IMAGES", "bulkhead")
    return f"{registry}/{name.replace('_', '-')}:{tag or os.environ.get('BULKHEAD_TAG', TAG)}"


def why_not() -> str:
    """The reason why Docker cannot be used here; "" when it can."""
    try:
        client()
    except ImageError as error:
        return str(error)
    return ""


@functools.cache
def client() -> str:
    """The path of a docker client that can build with BuildKit and reaches a daemon. Raises ImageError."""
    folders = [*os.environ.get("PATH", os.defpath).split(os.pathsep), "/usr/bin"]
    found = list(dict.fromkeys(path for one in folders if (path := shutil.which("docker", path=one))))
    if not found:
        raise ImageError("docker is not installed: on Debian, apt-get install docker.io docker-compose")
    able = [path for path in found if _builds(path)]
    if not able:
        raise ImageError(f"{found[0]} has no BuildKit: install docker-buildx-plugin, or Debian's docker.io")
    said = run([able[0], "info", "--format", "{{.ServerVersion}}"])
    if said.returncode:
        reason = said.stderr.strip().splitlines()[-1] if said.stderr.strip() else "no answer"
        raise ImageError(f"no Docker daemon answers ({reason}): start dockerd, or let this user use it (group docker)")
    return able[0]


def _builds(path: str) -> bool:
    said = run([path, "version", "--format", "{{.Client.Version}}"]).stdout.strip()
    first = said.split(".")[0]
    if first.isdigit() and int(first) < BUILDKIT_ALWAYS:
        return True
    return run([path, "buildx", "version"]).returncode == 0


def base_image() -> str:
    """BULKHEAD_BASE_IMAGE, else the one made of Debian's packages. Raises ImageError."""
    if given := os.environ.get("BULKHEAD_BASE_IMAGE"):
        return given
    done = run([str(BASE_SCRIPT)], environ={"DOCKER": client()}, timeout_s=BUILD_TIMEOUT_S)
    if done.returncode:
        raise ImageError(f"no base image: {done.stderr.strip()}; or set BULKHEAD_BASE_IMAGE=python:3.12-slim")
    return done.stdout.strip()


def ensure(names: Iterable[str] = ALL, *, tag: str = "", revision: str = "", base: str = "") -> dict[str, str]:
    """Build what is out of date; {name: image}. revision: of the repository, instead of the working tree. base: what
    they stand on, instead of `base_image`. Raises ImageError."""
    base = base or base_image()
    with _sources(revision) as root, _secrets() as secrets:
        return {name: _build(name, root, base, secrets, tag, revision) for name in names}


def weigh(names: Iterable[str] = ALL, tag: str = "") -> list[Built]:
    """Sizes of images that are built. Raises ImageError."""
    base = _size(base_image())
    sizes = {name: _size(tag_of(name, tag)) for name in names}
    return [Built(name, tag_of(name, tag), size, size - base) for name, size in sizes.items()]


def _build(name: str, root: Path, base: str, secrets: list[str], tag: str, revision: str) -> str:
    image = tag_of(name, tag)
    module, commit = IMAGES[name].module, _commit(revision)
    version = image.rpartition(":")[2]
    values = {"SERVICE": name, "MODULE": module, "BASE_IMAGE": base, "REVISION": commit, "VERSION": version}
    arguments = [f"--build-arg={key}={value}" for key, value in values.items()]
    options = ["--quiet", "--network=host", f"--file={root / DOCKERFILE}", f"--tag={image}", *arguments, *secrets]
    done = run([client(), "build", *options, str(root)], {"DOCKER_BUILDKIT": "1"}, BUILD_TIMEOUT_S)
    if done.returncode:
        raise ImageError(f"{image} could not be built:\n{done.stderr.strip()[-4000:]}")
    return image


@contextmanager
def _sources(revision: str) -> Iterator[Path]:
    """The tree to build from: the working tree, or a revision unpacked beside it."""
    if not revision:
        yield ROOT
        return
    with tempfile.TemporaryDirectory(prefix="bulkhead-sources-") as folder:
        archive = Path(folder) / "tree.tar"
        done = run(["git", "-C", str(ROOT), "archive", "--format", "tar", "--output", str(archive), revision])
        if done.returncode:
            raise ImageError(f"git knows no revision {revision}: {done.stderr.strip()}")
        tree = Path(folder) / "tree"
        tree.mkdir()
        # By the system's tar: Debian 12's Python knows no filters yet.
        done = run(["tar", "-x", "-f", str(archive), "-C", str(tree)])
        if done.returncode:
            raise ImageError(f"revision {revision} could not be unpacked: {done.stderr.strip()}")
        if not (tree / DOCKERFILE).is_file():
            raise ImageError(f"revision {revision} has no {DOCKERFILE}: it is older than the images")
        yield tree


@contextmanager
def _secrets() -> Iterator[list[str]]:
    """Arguments that show the builder how this machine reaches a package index and whom it trusts; in no layer."""
    given = os.environ.get("BULKHEAD_CA_BUNDLE", "")
    if given and not Path(given).is_file():
        raise ImageError(f"BULKHEAD_CA_BUNDLE names {given}, which is no file: name a PEM file, or unset it")
    with tempfile.TemporaryDirectory(prefix="bulkhead-build-") as folder:
        conf = Path(folder) / "pip.conf"
        conf.touch(mode=0o600)
        conf.write_text(_pip_conf())
        found = ["--secret", f"id=pip.conf,src={conf}"]
        ca = given or os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
        if ca and Path(ca).is_file():
            found += ["--secret", f"id=ca.pem,src={ca}"]
        yield found


def _pip_conf() -> str:
    listed = run([sys.executable, "-m", "pip", "config", "list"]).stdout
    settings: dict[str, str] = {}
    for line in listed.splitlines():
        place, _, value = line.partition("=")
        name = place.rpartition(".")[2]
        # Later lines win, and the environment's come last.
        if name in PIP_SETTINGS and "file:" not in value:
            settings[name] = value.strip("'\"")
    return "[global]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items())


def _commit(revision: str) -> str:
    said = run(["git", "-C", str(ROOT), "rev-parse", "--short=12", revision or "HEAD"]).stdout.strip()
    changed = not revision and run(["git", "-C", str(ROOT), "status", "--porcelain"]).stdout.strip()
    return f"{said or 'unknown'}{'-changed' if changed else ''}"


def _size(image: str) -> int:
    said = run([client(), "image", "inspect", "--format", "{{.Size}}", image])
    if said.returncode:
        raise ImageError(f"there is no image {image}: build it with `python -m bulkhead_infra.docker.images`")
    return int(said.stdout)


def run(
    command: list[str], environ: Mapping[str, str] | None = None, timeout_s: float = 60
) -> subprocess.CompletedProcess[str]:
    whole = {**os.environ, **(environ or {})}
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, env=whole)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        raise ImageError(f"{' '.join(command[:2])} did not end within {timeout_s:g} s; look at the daemon") from error


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bulkhead_infra.docker.images", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ALL)}; all when left out")
    parser.add_argument("--tag", default="", help=f"default: BULKHEAD_TAG, else {TAG}")
    parser.add_argument("--revision", default="", help="build a git revision instead of the working tree")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(ALL):
        parser.error(f"no such image: {', '.join(sorted(unknown))}; there are {', '.join(ALL)}")
    names = asked.names or ALL
    try:
        ensure(names, tag=asked.tag, revision=asked.revision)
        rows = weigh(names, asked.tag)
    except ImageError as error:
        print(error, file=sys.stderr)
        return 1
    if asked.json:
        told = [{"name": r.name, "image": r.tag, "bytes": r.bytes, "own_bytes": r.own_bytes} for r in rows]
        print(json.dumps(told, indent=1))
        return 0
    print(f"{'image':<16} {'beyond the base':>16} {'in all':>10}")
    for row in rows:
        kind = "" if row.name in (*SERVICES, *IN_KUBERNETES) else "  (infrastructure)"
        print(f"{row.name:<16} {row.own_bytes / 1e6:>13.1f} MB {row.bytes / 1e6:>7.1f} MB{kind}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
