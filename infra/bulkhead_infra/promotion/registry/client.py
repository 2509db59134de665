"""A registry, by the OCI distribution API: manifests, blobs and tags, each held to its digest.

In: `HOST[:PORT]/PREFIX`; http on this machine, https elsewhere. Out: bytes that hash to the digest that was asked for,
or a Refused (`altered`). A digest is `sha256:` and 64 hex digits.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urljoin

import httpx

from bulkhead_infra.promotion.errors import PromotionError, Refused, RegistryUnreachable, WrongUsage
from bulkhead_infra.promotion.registry import login

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
ACCEPTED = ", ".join((OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX))
MAX_MANIFEST_BYTES = 4 * 1024 * 1024
MAX_DOCUMENT_BYTES = 32 * 1024 * 1024
"""Of a blob that is read whole: a release, an attestation, a configuration."""
TIMEOUT_S = 60.0
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
READS_AGAIN = ("content-encoding", "content-length", "transfer-encoding")
"""Headers of an answer that no longer hold for what was read of it."""
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What a document raises whose form is another one, or that is nested too deep to be read."""
LOCAL = ("localhost", "127.0.0.1")


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def altered(where: str, digest: str, why: str) -> Refused:
    return Refused(
        "altered", f"{where} is not {digest}", why, "Do not use it; find out who wrote to the registry, and build anew"
    )


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A reference to content, as a manifest has it."""

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str]

    @classmethod
    def of(cls, row: dict[str, Any]) -> Self:
        """Raises one of UNREADABLE where it is none."""
        found = cls(row.get("mediaType", ""), row["digest"], row["size"], row.get("annotations") or {})
        texts = (found.media_type, *found.annotations.keys(), *found.annotations.values())
        fits = DIGEST.fullmatch(found.digest) and type(found.size) is int and found.size >= 0
        if not fits or not all(isinstance(text, str) for text in texts):
            raise ValueError("it is no descriptor")
        return found

    def document(self) -> dict[str, Any]:
        row: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        return {**row, **({"annotations": self.annotations} if self.annotations else {})}


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest's bytes, as the registry has them."""

    data: bytes
    media_type: str

    @property
    def digest(self) -> str:
        return digest_of(self.data)

    @property
    def document(self) -> dict[str, Any]:
        """Raises Refused, as `children`, `config` and `layers`, where it is no manifest that can be read."""
        try:
            found = json.loads(self.data)
        except UNREADABLE as error:
            raise self._unreadable(error) from error
        if not isinstance(found, dict):
            raise self._unreadable(TypeError("it is no object"))
        return found

    @property
    def children(self) -> tuple[Descriptor, ...]:
        """Manifests of an index, none of a plain image."""
        return self._rows("manifests")

    @property
    def config(self) -> Descriptor | None:
        row = self.document.get("config")
        try:
            return Descriptor.of(row) if row else None
        except UNREADABLE as error:
            raise self._unreadable(error) from error

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        return self._rows("layers")

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        return (*((self.config,) if self.config else ()), *self.layers)

    def _rows(self, key: str) -> tuple[Descriptor, ...]:
        document = self.document
        try:
            return tuple(map(Descriptor.of, document.get(key) or ()))
        except UNREADABLE as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> Refused:
        what, why = f"manifest {self.digest} cannot be read", str(error) or type(error).__name__
        return Refused("unreadable", what, why, "Find out who wrote it to the registry, and build anew")


class Registry:
    """One registry and a prefix in it; `with Registry("localhost:5000/bulkhead") as registry:`."""

    def __init__(self, place: str) -> None:
        host, _, prefix = place.partition("/")
        if not re.fullmatch(r"[\w.-]+(:\d+)?", host) or not re.fullmatch(r"[a-z0-9][a-z0-9._/-]*", prefix):
            raise WrongUsage(
                "registry", f"`{place}` is no registry", "it is not HOST[:PORT]/PREFIX", "Write ghcr.io/OWNER/bulkhead"
            )
        self.host, self.prefix = host, prefix.rstrip("/")
        scheme = "http" if host.partition(":")[0] in LOCAL else "https"
        self._url = f"{scheme}://{host}/v2/"
        self._client = httpx.Client(
            timeout=TIMEOUT_S, follow_redirects=True, event_hooks={"request": [self._keep_authorization]}
        )
        # The realm of a login is often another host; a client of its own sends the password there.
        self._logins = httpx.Client(timeout=TIMEOUT_S, follow_redirects=True)
        self._authorization: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._logins.close()

    def repository(self, *parts: str) -> str:
        """Its path below the registry, without the host."""
        return "/".join((self.prefix, *parts))

    def name(self, repository: str) -> str:
        """As docker and Kubernetes write it."""
        return f"{self.host}/{repository}"

    # Manifests

    def manifest(self, repository: str, reference: str) -> Manifest:
        """By digest or tag. Raises Refused when the bytes are not those of the digest, or when there is none."""
        found = self.find_manifest(repository, reference)
        if found is None:
            where, then = f"{self.name(repository)}@{reference}", "Name a release that `build` has pushed"
            raise Refused("missing", f"there is no {where}", "the registry answers 404", then)
        return found

    def find_manifest(self, repository: str, reference: str) -> Manifest | None:
        """As `manifest`; None when there is none."""
        answer = self._ask("GET", repository, f"manifests/{reference}", headers={"accept": ACCEPTED})
        where = f"{self.name(repository)}@{reference}"
        if answer.status_code == 404:
            return None
        self._well(answer, f"{where} could not be read")
        if len(answer.content) > MAX_MANIFEST_BYTES:
            why = f"its manifest has more than {MAX_MANIFEST_BYTES} bytes, more than any image has"
            raise altered(where, reference, why)
        found = Manifest(answer.content, answer.headers.get("content-type", "").partition(";")[0])
        if DIGEST.fullmatch(reference) and found.digest != reference:
            raise altered(where, reference, f"the manifest hashes to {found.digest}")
        return found

    def digest(self, repository: str, tag: str) -> str | None:
        """The digest that a tag names, by the manifest's bytes; None where there is none."""
        found = self.find_manifest(repository, tag)
        return found.digest if found else None

    def put_manifest(self, repository: str, reference: str, manifest: Manifest) -> str:
        headers = {"content-type": manifest.media_type}
        answer = self._ask("PUT", repository, f"manifests/{reference}", headers=headers, content=manifest.data)
        self._well(answer, f"{self.name(repository)}:{reference} could not be written")
        return manifest.digest

    # Blobs

    def blob(self, repository: str, digest: str) -> bytes:
        """A small blob, whole. Raises Refused when it does not hash to its digest."""
        data = b"".join(self._stream(repository, digest, MAX_DOCUMENT_BYTES))
        if digest_of(data) != digest:
            raise altered(f"blob of {self.name(repository)}", digest, f"it hashes to {digest_of(data)}")
        return data

    def check_blob(self, repository: str, wanted: Descriptor) -> None:
        """Read a blob of any size and hold it to its digest. Raises Refused."""
        hashed, size = hashlib.sha256(), 0
        for part in self._stream(repository, wanted.digest, wanted.size):
            hashed.update(part)
            size += len(part)
        if f"sha256:{hashed.hexdigest()}" != wanted.digest or size != wanted.size:
            where = f"layer of {self.name(repository)}"
            raise altered(where, wanted.digest, f"it hashes to sha256:{hashed.hexdigest()} ({size} bytes)")

    def put_blob(self, repository: str, data: bytes) -> Descriptor:
        digest = digest_of(data)
        if not self._has_blob(repository, digest):
            started = self._ask("POST", repository, "blobs/uploads/")
            self._well(started, f"{self.name(repository)} takes no upload")
            self._finish(repository, started, digest, data)
        return Descriptor("application/octet-stream", digest, len(data), {})

    def copy_blob(self, source: str, target: str, wanted: Descriptor) -> None:
        """Within the registry: it mounts the blob, so that no byte travels where it can."""
        if self._has_blob(target, wanted.digest):
            return
        answer = self._ask("POST", target, "blobs/uploads/", params={"mount": wanted.digest, "from": source})
        self._well(answer, f"{self.name(target)} takes no upload")
        if answer.status_code == 202:
            # It mounts nothing, and has begun an upload instead.
            self._finish(target, answer, wanted.digest, self._stream(source, wanted.digest, wanted.size))

    def _finish(self, repository: str, started: httpx.Response, digest: str, data: bytes | Iterator[bytes]) -> None:
        address = urljoin(self._url, started.headers["location"])
        headers = {"content-type": "application/octet-stream"}
        url = str(httpx.URL(address).copy_merge_params({"digest": digest}))
        done = self._send("PUT", url, repository, headers=headers, content=data)
        self._well(done, f"a blob of {self.name(repository)} could not be written")

    def _has_blob(self, repository: str, digest: str) -> bool:
        return self._ask("HEAD", repository, f"blobs/{digest}").status_code == 200

    def _stream(self, repository: str, digest: str, most: int) -> Iterator[bytes]:
        url, size = f"{self._url}{repository}/blobs/{digest}", 0
        if repository not in self._authorization:
            # Asked first, so that a login happens here and not in the middle of a stream.
            self._has_blob(repository, digest)
        try:
            with self._client.stream("GET", url, headers=self._headers(repository)) as answer:
                if answer.status_code == 404:
                    what, why = f"{self.name(repository)} has no {digest}", "the registry answers 404"
                    raise Refused("missing", what, why, "Push the image again")
                self._well(answer, f"{digest} of {self.name(repository)} could not be read")
                for part in answer.iter_bytes():
                    size += len(part)
                    if size > most:
                        why = f"the registry sends more than {most} bytes"
                        raise altered(f"blob of {self.name(repository)}", digest, why)
                    yield part
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    # Requests

    def _ask(
        self,
        method: str,
        repository: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> httpx.Response:
        url = str(httpx.URL(f"{self._url}{repository}/{path}").copy_merge_params(params or {}))
        return self._send(method, url, repository, headers=headers, content=content)

    def _send(
        self,
        method: str,
        url: str,
        repository: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | Iterator[bytes] | None = None,
    ) -> httpx.Response:
        try:
            answer = self._read(method, url, self._headers(repository, headers), content)
            if answer.status_code == 401 and self._is_here(answer.url):
                self._authorization[repository] = login.authorization(self.host, answer, self._logins)
                answer = self._read(method, url, self._headers(repository, headers), content)
            self._authorization.setdefault(repository, "")
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        return answer

    def _read(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes | Iterator[bytes] | None
    ) -> httpx.Response:
        """An answer, of which no more is read than a manifest may have, and a part that shows that there was more."""
        data = bytearray()
        with self._client.stream(method, url, headers=headers, content=content) as answer:
            for part in answer.iter_bytes():
                data += part
                if len(data) > MAX_MANIFEST_BYTES:
                    break
        kept = [(name, text) for name, text in answer.headers.multi_items() if name not in READS_AGAIN]
        return httpx.Response(answer.status_code, headers=kept, content=bytes(data), request=answer.request)

    def _is_here(self, url: httpx.URL) -> bool:
        """Whether an address is of this registry: scheme, host and port."""
        here = httpx.URL(self._url)
        return (url.scheme, url.host, url.port) == (here.scheme, here.host, here.port)

    def _keep_authorization(self, request: httpx.Request) -> None:
        """A registry may send uploads and downloads elsewhere; the login stays here."""
        if not self._is_here(request.url):
            request.headers.pop("authorization", None)

    def _headers(self, repository: str, more: Mapping[str, str] | None = None) -> dict[str, str]:
        known = self._authorization.get(repository)
        return {**({"authorization": known} if known else {}), **(more or {})}

    def _unreachable(self, error: Exception) -> RegistryUnreachable:
        why = str(error) or type(error).__name__
        return RegistryUnreachable(
            "unreachable", f"{self.host} does not answer", why, "Start it, or correct --registry; nothing was changed"
        )

    def _well(self, answer: httpx.Response, what: str) -> None:
        if answer.status_code in (401, 403):
            why = f"status {answer.status_code}"
            raise RegistryUnreachable("forbidden", what, why, f"Call `docker login {self.host}` as a user who may")
        if answer.status_code >= 400:
            why = f"status {answer.status_code}"
            raise PromotionError("registry_failed", what, why, "Look at the registry's log, and try again")
