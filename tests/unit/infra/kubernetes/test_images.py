"""images.yaml: what promotion writes, and what it refuses."""

import pytest
import yaml

from bulkhead_infra.kubernetes import images
from bulkhead_infra.kubernetes.images import ImageError, images_text, references

DIGEST = "sha256:" + "a" * 64
GIVEN = {"worker": f"registry.example.org:5000/mesh/worker@{DIGEST}"}


def test_what_is_written_is_read_again() -> None:
    text = images_text(GIVEN)
    assert references(text) == GIVEN
    assert images_text(references(text)) == text


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


def test_a_file_that_promotion_did_not_write_is_refused() -> None:
    with pytest.raises(ImageError, match="restore it"):
        references("kind: ImageTagTransformer\n")
