"""The files of volumes, as a kubelet writes them: owners, modes, and a folder that is exchanged as a whole. Pure.

In: ConfigMaps and Secrets, a pod's volume, tokens. Out: files by path, and the archive that puts them into a volume.
"""

import base64
import io
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bulkhead_infra.stages.manifests.fields import FieldError, Object

DEFAULT_MODE = 0o644
READABLE = 0o440
"""What fsGroup adds to the rights of files that the kubelet writes."""
TOKEN_MODE = 0o600
"""A token is the user's own, whatever the volume's defaultMode says."""
FOLDER_MODE = 0o2755
SHARED_MODE = 0o2777
TOKEN_S, API_AUDIENCE = 3600, ""
DATA = "..data"
Mint = Callable[[str, int], str]
"""A token for an audience ("": the API server's own) that lasts so many seconds."""


class Maps:
    """ConfigMaps and Secrets by name."""

    def __init__(self, objects: Sequence[Object]) -> None:
        self._content = {
            (one["kind"], one["metadata"]["name"]): _content(one)
            for one in objects
            if one["kind"] in ("ConfigMap", "Secret")
        }

    def get(self, where: str, kind: str, name: str) -> Mapping[str, bytes]:
        """Its keys. Raises FieldError."""
        found = self._content.get((kind, name))
        if found is None:
            way = "make it: `python -m bulkhead_infra.kubernetes secrets`" if kind == "Secret" else "render the overlay"
            raise FieldError(f"{where}: there is no {kind} {name}; {way}, or correct the name")
        return found


def _content(one: Object) -> dict[str, bytes]:
    plain = {**one.get("data", {}), **one.get("stringData", {})} if one["kind"] == "ConfigMap" else {}
    if one["kind"] == "Secret":
        plain = one.get("stringData", {})
    encoded = one.get("binaryData" if one["kind"] == "ConfigMap" else "data", {})
    return {
        **{key: base64.b64decode(value) for key, value in encoded.items()},
        **{key: value.encode() for key, value in plain.items()},
    }


@dataclass(frozen=True, slots=True)
class File:
    """A file of a volume. uid: its owner; the group is the pod's fsGroup."""

    content: bytes
    mode: int
    uid: int = 0


def is_written(volume: Object) -> bool:
    """Whether the kubelet writes its files; else the pod does."""
    return any(kind in volume for kind in ("configMap", "secret", "projected"))


def token_ends(volume: Object) -> list[int]:
    """How long each of its tokens is to last, in seconds."""
    sources = volume.get("projected", {}).get("sources", ())
    return [
        one["serviceAccountToken"].get("expirationSeconds", TOKEN_S) for one in sources if "serviceAccountToken" in one
    ]


def files(where: str, volume: Object, maps: Maps, mint: Mint, user: int) -> dict[str, File]:
    """Files of one volume. user: under whom the pod runs. Raises FieldError."""
    if "projected" in volume:
        sources = volume["projected"]["sources"]
        mode = volume["projected"].get("defaultMode", DEFAULT_MODE)
    else:
        kind = "configMap" if "configMap" in volume else "secret"
        row = volume[kind]
        mode = row.get("defaultMode", DEFAULT_MODE)
        sources = [{kind: {"name": row.get("secretName") or row["name"], "items": row.get("items")}}]
    found: dict[str, File] = {}
    for source in sources:
        more = _source(where, source, maps, mint, mode | READABLE, user)
        if both := sorted(set(found) & set(more)):
            raise FieldError(f"{where}: two sources of the volume {volume['name']} have a file {both[0]}")
        found |= more
    return found


def _source(where: str, source: Object, maps: Maps, mint: Mint, mode: int, user: int) -> dict[str, File]:
    if "serviceAccountToken" in source:
        row = source["serviceAccountToken"]
        token = mint(row.get("audience", API_AUDIENCE), row.get("expirationSeconds", TOKEN_S))
        return {row["path"]: File(token.encode(), TOKEN_MODE | READABLE, user)}
    [(key, row)] = source.items()
    kind = {"configMap": "ConfigMap", "secret": "Secret"}[key]
    content = maps.get(where, kind, row["name"])
    items = row.get("items")
    if items is None:
        return {name: File(text, mode) for name, text in content.items()}
    if lost := [one["key"] for one in items if one["key"] not in content]:
        raise FieldError(f"{where}: {kind} {row['name']} has no key {lost[0]}")
    return {one["path"]: File(content[one["key"]], mode) for one in items}


def archive(volumes: Iterable[tuple[str, int, Mapping[str, File], str]]) -> bytes:
    """Volumes with their files: (folder of the volume, group, files, name of the folder that holds them)."""
    with io.BytesIO() as buffer:
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for folder, group, found, version in volumes:
                _folder(tar, folder, group, FOLDER_MODE)
                _files(tar, f"{folder}/{version}", group, found)
                _link(tar, f"{folder}/{DATA}", version)
                for name in found:
                    _link(tar, f"{folder}/{name}", f"{DATA}/{name}")
        return buffer.getvalue()


def fresh(folder: str, group: int, found: Mapping[str, File], version: str) -> bytes:
    """Files for a volume that has others: beside these, under another version."""
    with io.BytesIO() as buffer:
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            _files(tar, f"{folder}/{version}", group, found)
        return buffer.getvalue()


def empty(folders: Iterable[tuple[str, int]]) -> bytes:
    """Volumes for pods to write into: (folder, group)."""
    with io.BytesIO() as buffer:
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for folder, group in folders:
                _folder(tar, folder, group, SHARED_MODE)
        return buffer.getvalue()


def _files(tar: tarfile.TarFile, folder: str, group: int, found: Mapping[str, File]) -> None:
    _folder(tar, folder, group, FOLDER_MODE)
    for name, file in found.items():
        info = tarfile.TarInfo(f"{folder}/{name}")
        info.size, info.mode, info.uid, info.gid = len(file.content), file.mode, file.uid, group
        tar.addfile(info, io.BytesIO(file.content))


def _folder(tar: tarfile.TarFile, path: str, group: int, mode: int) -> None:
    info = tarfile.TarInfo(path)
    info.type, info.mode, info.uid, info.gid = tarfile.DIRTYPE, mode, 0, group
    tar.addfile(info)


def _link(tar: tarfile.TarFile, path: str, target: str) -> None:
    info = tarfile.TarInfo(path)
    info.type, info.linkname = tarfile.SYMTYPE, target
    tar.addfile(info)
