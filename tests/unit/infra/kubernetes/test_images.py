"""Images of an overlay: what is rendered of the list of a release, and what is refused."""

import pytest
import yaml

from bulkhead_infra.kubernetes import images
from bulkhead_infra.kubernetes.images import ImageError, images_text, references

DIGEST = "sha256:" + "a" * 64
GIVEN = {"worker": f"registry.example.org:5000/mesh/worker@{DIGEST}"}


def test_a_list_gives_references_by_digest() -> None:
    assert references(f"{'a' * 64}  registry.example.org:5000/mesh/worker:v1.2.0\n") == GIVEN
    assert references("") == {}


def test_an_image_without_a_reference_is_a_placeholder() -> None:
    rows = [one for one in yaml.safe_load_all(images_text(GIVEN)) if one["kind"] == "ImageTagTransformer"]
    digests = {one["metadata"]["name"]: one["imageTag"]["digest"] for one in rows}
    assert set(digests) == set(images.names()) and digests.pop("worker") == DIGEST
    assert set(digests.values()) == {images.PLACEHOLDER}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"worker": "registry.example.org/worker:1.2"}, "names no digest"),
        ({"worker": f"registry.example.org/worker@{DIGEST[:-1]}"}, "names no digest"),
        ({"walker": f"registry.example.org/walker@{DIGEST}"}, "is no image of the manifests; there are"),
    ],
)
def test_what_names_no_image_by_its_digest_is_refused(given: dict[str, str], said: str) -> None:
    with pytest.raises(ImageError, match=said):
        images_text(given)


@pytest.mark.parametrize(
    "line", ["kind: ImageTagTransformer", f"{DIGEST}  registry.example.org/worker:v1", f"{'a' * 64}  worker:v1"]
)
def test_a_list_that_is_of_no_release_is_refused(line: str) -> None:
    with pytest.raises(ImageError, match="restore it"):
        references(line)
