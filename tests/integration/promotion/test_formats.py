"""Others can read what lies in the registry: signatures as cosign specifies them, documents by their own forms."""

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from bulkhead_infra.docker.image_contents import ROOT, requirement_lists
from bulkhead_infra.promotion import sbom
from bulkhead_infra.promotion.attachments import attached_tag
from bulkhead_infra.promotion.release import BUILD, STAGING, Base, Stored
from tests.integration.promotion.shop import Shop

pytestmark = pytest.mark.nightly


def _fetched(shop: Shop, folder: Path, repository: str, reference: str) -> dict[str, Any]:
    """A manifest, with its blobs in the folder by their hex digests; by a client that is not ours."""
    place = f"docker://{shop.registry.name(repository)}:{reference}"
    # Debian's skopeo keeps sigstore's verification switched off: it brings what openssl then verifies.
    options = ["--insecure-policy", "copy", "--src-tls-verify=false"]
    command = ["skopeo", *options, place, f"dir:{folder}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


def _verifies(public: Path, signature: str, data: bytes, folder: Path) -> bool:
    (folder / "signature").write_bytes(base64.b64decode(signature))
    command = ["openssl", "dgst", "-sha256", "-verify", str(public), "-signature", str(folder / "signature")]
    return subprocess.run(command, input=data, capture_output=True, timeout=60).returncode == 0


@pytest.mark.parametrize("name", ["worker", "release"])
def test_a_signature_is_found_and_verified_as_cosign_specifies(shop: Shop, tmp_path: Path, name: str) -> None:
    """SIGNATURE_SPEC.md: the tag, the types, the claims of the payload, the signature over its bytes."""
    stored = shop.ready("v1")
    shop.promote(stored, STAGING)
    digest, repository = stored.parts[name], shop.registry.repository(STAGING, name)
    manifest = _fetched(shop, tmp_path / "image", repository, f"{digest.replace(':', '-')}.sig")
    assert manifest["schemaVersion"] == 2
    assert manifest["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
    (layer,) = manifest["layers"]
    assert layer["mediaType"] == "application/vnd.dev.cosign.simplesigning.v1+json"
    payload = (tmp_path / "image" / layer["digest"].removeprefix("sha256:")).read_bytes()
    critical = json.loads(payload)["critical"]
    assert critical["image"] == {"docker-manifest-digest": digest}
    assert critical["type"] == "cosign container image signature"
    # Whoever signs says for which repository: that of the build, wherever it is copied.
    assert critical["identity"] == {"docker-reference": shop.registry.name(shop.registry.repository(BUILD, name))}
    signature = layer["annotations"]["dev.cosignproject.cosign/signature"]
    assert _verifies(shop.trusted / "release.pub", signature, payload, tmp_path)
    assert not _verifies(shop.folder / "keys/release-stranger.pub", signature, payload, tmp_path)
    assert not _verifies(shop.trusted / "release.pub", signature, payload + b" ", tmp_path)


def test_attestations_are_found_and_verified_as_cosign_specifies(shop: Shop, tmp_path: Path) -> None:
    """ATTESTATION_SPEC.md, and DSSE's pre-authentication encoding written out again."""
    stored = shop.ready("v1")
    repository = shop.registry.repository(BUILD, "worker")
    manifest = _fetched(shop, tmp_path / "image", repository, f"{stored.parts['worker'].replace(':', '-')}.att")
    assert len(manifest["layers"]) == 3
    for layer in manifest["layers"]:
        envelope = json.loads((tmp_path / "image" / layer["digest"].removeprefix("sha256:")).read_bytes())
        kind, body = envelope["payloadType"], base64.b64decode(envelope["payload"])
        signed = f"DSSEv1 {len(kind)} {kind} {len(body)} ".encode() + body
        assert _verifies(shop.trusted / "release.pub", envelope["signatures"][0]["sig"], signed, tmp_path)


def _statements(shop: Shop, stored: Stored, name: str) -> dict[str, Any]:
    repository = shop.registry.repository(BUILD, name)
    rows = shop.registry.manifest(repository, attached_tag(stored.parts[name], "att")).layers
    found = {}
    for row in rows:
        envelope = json.loads(shop.registry.blob(repository, row.digest))
        assert row.media_type == "application/vnd.dsse.envelope.v1+json"
        assert envelope["payloadType"] == "application/vnd.in-toto+json" and len(envelope["signatures"]) == 1
        statement = json.loads(base64.b64decode(envelope["payload"]))
        assert statement["_type"] == "https://in-toto.io/Statement/v1"
        assert row.annotations["predicateType"] == statement["predicateType"]
        found[statement["predicateType"]] = statement
    return found


def test_statements_have_the_fields_that_their_types_demand(shop: Shop) -> None:
    stored = shop.ready("v1")
    found = _statements(shop, stored, "worker")
    assert set(found) == {
        "https://slsa.dev/provenance/v1",
        "https://cyclonedx.org/bom",
        "https://in-toto.io/attestation/test-result/v0.1",
    }
    origin = found["https://slsa.dev/provenance/v1"]
    (subject,) = origin["subject"]
    assert f"sha256:{subject['digest']['sha256']}" == stored.parts["worker"]
    definition, details = origin["predicate"]["buildDefinition"], origin["predicate"]["runDetails"]
    assert {"buildType", "externalParameters", "internalParameters", "resolvedDependencies"} == set(definition)
    assert definition["resolvedDependencies"][0]["digest"] == {"gitCommit": stored.release.revision}
    assert details["builder"]["id"] and set(details["metadata"]) == {"invocationId", "startedOn", "finishedOn"}
    tests = found["https://in-toto.io/attestation/test-result/v0.1"]
    assert {f"sha256:{row['digest']['sha256']}" for row in tests["subject"]} == stored.subjects
    assert tests["predicate"]["result"] == "PASSED" and tests["predicate"]["passedTests"] == ["tests::test_it"]


def test_a_bill_of_materials_is_valid_and_has_every_pin(shop: Shop) -> None:
    stored = shop.ready("v1")
    bill = _statements(shop, stored, "worker")["https://cyclonedx.org/bom"]["predicate"]
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bill)) is None
    packages = {row["purl"] for row in bill["components"] if row["type"] == "library"}
    lines = "".join(requirement_lists("worker")).splitlines()
    pinned = {line.split()[0] for line in lines if "==" in line and not line.startswith(" ")}
    assert packages == {f"pkg:pypi/{one.replace('==', '@')}" for one in pinned} and len(packages) > 15
    assert sbom.bill_of_materials(stored.release, "worker", ROOT) == bill


@pytest.mark.parametrize(("python", "has"), [("3.11.2", True), ("3.11.9", False)])
def test_a_bill_of_materials_leaves_out_what_the_platform_does_not_install(python: str, has: bool) -> None:
    pins = sbom.pins("budget", Base(name="base", digest=f"sha256:{'0' * 64}", python=python), ROOT)
    assert ("async-timeout" in {pin.name for pin in pins}) == has
    assert "pywin32" not in {pin.name for pin in sbom.pins("tool-executor", pins_base(), ROOT)}


def pins_base() -> Base:
    return Base(name="base", digest=f"sha256:{'0' * 64}", python="3.12.1")
