"""From a build to production and back, on a real registry: what is promoted, and what is refused."""

from collections.abc import Callable

import pytest

from bulkhead_infra.kubernetes.images import images_text
from bulkhead_infra.promotion import build, checks
from bulkhead_infra.promotion.attachments import ENVELOPE, SIGNATURE_KEY, SIMPLE_SIGNING, attached_tag, compact
from bulkhead_infra.promotion.errors import PromotionError, Refused, WrongUsage
from bulkhead_infra.promotion.overlay import Entry
from bulkhead_infra.promotion.registry.client import OCI_INDEX, OCI_MANIFEST, Manifest, Registry, digest_of
from bulkhead_infra.promotion.release import BUILD, PRODUCTION, STAGING, Stored, load
from tests.integration.promotion.shop import ALL, Shop, push_image, ran

pytestmark = pytest.mark.nightly


def test_a_release_goes_to_production_by_its_digests_and_back(shop: Shop) -> None:
    first, second = shop.ready("v1"), shop.ready("v2")
    for stored in (first, second):
        for environment in (STAGING, PRODUCTION):
            shop.promote(stored, environment)
    for environment in (STAGING, PRODUCTION):
        for name, digest in second.parts.items():
            repository = shop.registry.repository(environment, name)
            assert digest_of(shop.registry.manifest(repository, digest).data) == digest
    wanted = {name: f"{shop.place}/production/{name}@{digest}" for name, digest in second.release.images.items()}
    assert shop.overlay(PRODUCTION).images() == wanted
    # A render of the manifests would write the same file.
    assert (shop.overlays / PRODUCTION / "images.yaml").read_text() == images_text(wanted)

    entry = shop.rollback(PRODUCTION)
    assert (entry.release, entry.previous, entry.action) == (first.digest, second.digest, "rollback")
    digests = {place.rpartition("@")[2] for place in shop.overlay(PRODUCTION).images().values()}
    assert digests == set(first.release.images.values())
    # Staging stands as it stood; and there is nothing before the first.
    assert shop.overlay(STAGING).stack() == [first.digest, second.digest]
    with pytest.raises(Refused, match="cannot go back") as error:
        shop.rollback(PRODUCTION)
    assert error.value.code == "no_previous"


PART = (checks.TESTS_OF_IMAGES, "-k", "planner")


def _untested(shop: Shop) -> Stored:
    return shop.ready("v1", but="test")


def _failed(shop: Shop) -> Stored:
    stored = shop.ready("v1")
    later = ran(stored, failed=("tests::test_it",), finished_at="2026-01-02T00:00:00Z")
    build.attest_tests(shop.registry, stored, later, shop.key("release"))
    return stored


def _failed_at_the_same_time(shop: Shop) -> Stored:
    stored = shop.ready("v1", but="test")
    for failed in ((), ("tests::test_it",)):
        build.attest_tests(shop.registry, stored, ran(stored, failed=failed), shop.key("release"))
    return stored


def _failed_and_then_tested_in_part(shop: Shop) -> Stored:
    stored = _failed(shop)
    later = ran(stored, arguments=PART, finished_at="2026-01-03T00:00:00Z")
    build.attest_tests(shop.registry, stored, later, shop.key("release"))
    return stored


def _tested_in_part(shop: Shop) -> Stored:
    stored = shop.ready("v1", but="test")
    build.attest_tests(shop.registry, stored, ran(stored, arguments=PART), shop.key("release"))
    return stored


def _another_suite(shop: Shop) -> Stored:
    stored = shop.ready("v1", but="test")
    build.attest_tests(shop.registry, stored, ran(stored, suite="unit"), shop.key("release"))
    return stored


def _moved_tag(shop: Shop) -> Stored:
    stored = shop.ready("v1")
    push_image(shop.registry, "worker", "v1", "0" * 40)
    return stored


def _changed_layer(shop: Shop) -> Stored:
    stored = shop.ready("v1")
    layer = shop.registry.manifest(shop.registry.repository(BUILD, "worker"), stored.parts["worker"]).layers[0]
    file = shop.file_of(layer.digest)
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    return stored


def _changed_manifest(shop: Shop) -> Stored:
    stored = shop.ready("v1")
    file = shop.file_of(stored.parts["worker"])
    file.write_bytes(file.read_bytes().replace(b'"schemaVersion":2', b'"schemaVersion": 2'))
    return stored


def _of_two_builds(shop: Shop) -> Stored:
    """Everything is attested, tested and signed, by a key that may: but one image is of another commit."""
    stranger = push_image(shop.registry, "worker", "v2", "0" * 40)
    stored = shop.push("v2", tuple(name for name in ALL if name != "worker"), worker=stranger)
    build.attest_origin(shop.registry, stored, shop.key("release"))
    build.attest_tests(shop.registry, stored, ran(stored), shop.key("release"))
    build.put_signatures(shop.registry, stored, shop.key("release"))
    return stored


def _lacking_an_image(shop: Shop) -> Stored:
    stored = shop.push("v1", ALL[1:])
    build.attest_origin(shop.registry, stored, shop.key("release"))
    build.attest_tests(shop.registry, stored, ran(stored), shop.key("release"))
    build.put_signatures(shop.registry, stored, shop.key("release"))
    return stored


REFUSED: dict[str, tuple[Callable[[Shop], Stored], str]] = {
    "not signed": (lambda shop: shop.ready("v1", but="sign"), "unsigned"),
    "signed by somebody else": (lambda shop: shop.ready("v1", signer="release-stranger"), "wrong_signer"),
    "not attested": (lambda shop: shop.ready("v1", but="attest"), "unattested"),
    "not tested": (_untested, "untested"),
    "failed in its last run": (_failed, "untested"),
    "passed and failed at a time": (_failed_at_the_same_time, "untested"),
    "tested in part": (_tested_in_part, "untested"),
    "failed, then tested in part": (_failed_and_then_tested_in_part, "untested"),
    "tested by another suite": (_another_suite, "untested"),
    "a tag that moved": (_moved_tag, "altered"),
    "a layer that changed": (_changed_layer, "altered"),
    "a manifest that changed": (_changed_manifest, "altered"),
    "images of two builds": (_of_two_builds, "mixed"),
    "an image too few": (_lacking_an_image, "incomplete"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_hold_goes_nowhere(shop: Shop, case: str) -> None:
    make, code = REFUSED[case]
    stored = make(shop)
    with pytest.raises(Refused) as error:
        shop.promote(stored, STAGING)
    assert error.value.code == code, str(error.value)
    assert error.value.what and error.value.why and error.value.then
    # Nothing was copied or written.
    assert shop.overlay(STAGING).images() == {} and shop.overlay(STAGING).history() == []
    assert shop.registry.digest(shop.registry.repository(STAGING, "worker"), stored.parts["worker"]) is None


FOLDER = checks.TESTS_OF_IMAGES


@pytest.mark.parametrize("arguments", [[FOLDER], [FOLDER, "-q", "-n4", "--durations=10", "-rs"], [FOLDER, FOLDER]])
def test_arguments_of_a_whole_run(arguments: list[str]) -> None:
    assert checks.whole(arguments)


@pytest.mark.parametrize(
    "arguments",
    [None, [], "tests", ["-q"], [f"{FOLDER}/test_images.py"], [f"{FOLDER}::test"], [FOLDER, "@file"], [FOLDER, 1]]
    + [[FOLDER, more] for more in ("-kx", "-m=x", "--lf", "-x", "--co", "--deselect=x", "--ignore=x", "-n4x", "-qk")],
)
def test_arguments_that_may_leave_tests_out(arguments: object) -> None:
    assert not checks.whole(arguments)


def test_a_part_of_the_tests_does_not_hide_that_all_passed(shop: Shop) -> None:
    stored = shop.ready("v1")
    later = ran(stored, arguments=PART, finished_at="2026-01-03T00:00:00Z")
    build.attest_tests(shop.registry, stored, later, shop.key("release"))
    assert checks.examine(shop.registry, stored, shop.trust) == []


def test_a_signature_of_another_release_is_none_of_this_one(shop: Shop) -> None:
    """Copied beside it, both kinds: each says inside what it speaks of."""
    good, bad = shop.ready("v1"), shop.push("v2")
    for name, digest in good.parts.items():
        repository = shop.registry.repository(BUILD, name)
        for kind in ("sig", "att"):
            there = shop.registry.manifest(repository, f"{digest.replace(':', '-')}.{kind}")
            shop.registry.put_manifest(repository, f"{bad.parts[name].replace(':', '-')}.{kind}", there)
    codes = {one.code for one in checks.examine(shop.registry, bad, shop.trust)}
    assert codes == {"wrong_signer"}


def test_a_release_cannot_be_signed_before_it_is_tested(shop: Shop) -> None:
    stored = shop.ready("v1", but="test")
    with pytest.raises(Refused) as error:
        build.sign_all(shop.registry, stored, shop.key("release"), shop.trust)
    assert error.value.code == "untested"
    build.attest_tests(shop.registry, stored, ran(stored), shop.key("release"))
    build.sign_all(shop.registry, stored, shop.key("release"), shop.trust)
    assert checks.examine(shop.registry, stored, shop.trust) == []


def test_production_takes_what_staging_has_now(shop: Shop) -> None:
    first, second = shop.ready("v1"), shop.ready("v2")
    with pytest.raises(Refused) as error:
        shop.promote(first, PRODUCTION)
    assert error.value.code == "not_in_staging"
    for stored in (first, second):
        shop.promote(stored, STAGING)
    with pytest.raises(Refused, match="staging has sha256") as error:
        shop.promote(first, PRODUCTION)
    assert error.value.code == "not_in_staging"
    shop.promote(second, PRODUCTION)


def test_a_history_alone_is_no_promotion(shop: Shop) -> None:
    """Somebody who can write files and the registry, and has no key of staging."""
    stored = shop.ready("v1")
    shop.promote(stored, STAGING)
    tag = f"{stored.digest.replace(':', '-')}.att"
    build_side = shop.registry.repository(BUILD, "release")
    without = shop.registry.manifest(build_side, tag)
    shop.registry.put_manifest(shop.registry.repository(STAGING, "release"), tag, without)
    with pytest.raises(Refused, match="no staging key has signed") as error:
        shop.promote(stored, PRODUCTION)
    assert error.value.code == "not_in_staging"


@pytest.mark.parametrize("role", ["release", "production", "release-stranger"])
def test_a_key_promotes_to_its_own_environment_alone(shop: Shop, role: str) -> None:
    stored = shop.ready("v1")
    with pytest.raises(Refused, match="may not promote to staging") as error:
        shop.promote(stored, STAGING, role)
    assert error.value.code == "wrong_signer"
    assert shop.registry.digest(shop.registry.repository(STAGING, "release"), "v1") is None


def test_a_rollback_examines_the_release_again(shop: Shop) -> None:
    first, second = shop.ready("v1"), shop.ready("v2")
    for stored in (first, second):
        shop.promote(stored, STAGING)
    file = shop.file_of(first.parts["worker"])
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(Refused) as error:
        shop.rollback(STAGING)
    assert error.value.code == "altered"
    assert shop.overlay(STAGING).stack()[-1] == second.digest


def test_a_promotion_that_was_cut_off_goes_on(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = shop.ready("v1")
    put, count = Registry.put_manifest, iter(range(1_000))

    def until(self: Registry, *arguments: object) -> str:
        if next(count) == 5:
            raise PromotionError("cut", "cut off", "by the test", "Go on")
        return put(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Registry, "put_manifest", until)
    with pytest.raises(PromotionError, match="cut off"):
        shop.promote(stored, STAGING)
    monkeypatch.undo()
    assert shop.overlay(STAGING).history() == []
    for _ in range(2):
        shop.promote(stored, STAGING)
    assert [one.release for one in shop.overlay(STAGING).history()] == [stored.digest]


def test_a_new_key_is_trusted_beside_the_old_one_and_then_alone(shop: Shop) -> None:
    old = shop.ready("v1")
    public = (shop.folder / "keys/release-stranger.pub").read_bytes()
    (shop.trusted / "release-2027.pub").write_bytes(public)
    new = shop.ready("v2", signer="release-stranger")
    for stored in (old, new):
        shop.promote(stored, STAGING)
    (shop.trusted / "release.pub").unlink()
    with pytest.raises(Refused) as error:
        shop.rollback(STAGING)
    assert error.value.code == "wrong_signer"
    shop.promote(new, PRODUCTION)


def test_a_tag_of_another_release_is_not_that_version(shop: Shop) -> None:
    """Whoever can write to the registry can move a tag; a reviewer who asked for v2 gets no v1."""
    first, second = shop.ready("v1"), shop.ready("v2")
    repository = shop.registry.repository(BUILD, "release")
    shop.registry.put_manifest(repository, "v2", shop.registry.manifest(repository, first.digest))
    with pytest.raises(Refused, match="names release v1") as error:
        shop.promote("v2", STAGING)
    assert error.value.code == "altered"
    assert load(shop.registry, BUILD, "v1").digest == first.digest
    assert load(shop.registry, BUILD, second.digest).release.version == "v2"


@pytest.mark.parametrize("reference", ["../../staging/release/manifests/v1", "v1?x=1", "v1/", "", "v1\n", "sha256:12"])
def test_a_release_is_named_by_its_digest_or_version_alone(shop: Shop, reference: str) -> None:
    """A reference is part of an address: another one would be read, of a stage that nobody named."""
    shop.promote(shop.ready("v1"), STAGING)
    with pytest.raises(WrongUsage, match="is no release"):
        load(shop.registry, BUILD, reference)


DEEP = b"[" * 100_000 + b"]" * 100_000
NO_MANIFESTS = {
    "no JSON": b"{",
    "nested": b'{"layers": ' + DEEP + b"}",
    "a list": b"[]",
    "of another form": b'{"layers": [1], "config": {"digest": "../x"}}',
    "a digest that is none": b'{"layers": [{"digest": "../../x", "size": 1}]}',
    "no size": b'{"config": {"digest": "sha256:' + b"0" * 64 + b'", "size": "1"}}',
}


@pytest.mark.parametrize("case", NO_MANIFESTS)
def test_a_manifest_that_cannot_be_read_is_refused(case: str) -> None:
    manifest = Manifest(NO_MANIFESTS[case], OCI_MANIFEST)
    with pytest.raises(Refused, match="cannot be read") as error:
        assert manifest.blobs or manifest.children
    assert error.value.code == "unreadable"


@pytest.mark.parametrize("content", [b"{", DEEP, b"[]", b'{"payload": 1}', b'"text"'])
@pytest.mark.parametrize(("kind", "media_type"), [("att", ENVELOPE), ("sig", SIMPLE_SIGNING)])
def test_what_is_attached_and_cannot_be_read_counts_as_not_there(
    shop: Shop, kind: str, media_type: str, content: bytes
) -> None:
    """Whoever can write to the registry can lay it there; it hides nothing that is signed."""
    stored = shop.ready("v1")
    repository, tag = shop.registry.repository(BUILD, "worker"), attached_tag(stored.parts["worker"], kind)
    blob = shop.registry.put_blob(repository, content)
    document = shop.registry.manifest(repository, tag).document
    row = {"mediaType": media_type, "digest": blob.digest, "size": blob.size, "annotations": {SIGNATURE_KEY: "é"}}
    laid = compact({**document, "layers": [row, *document["layers"]]})
    shop.registry.put_manifest(repository, tag, Manifest(laid, OCI_MANIFEST))
    assert {one.code for one in checks.examine(shop.registry, stored, shop.trust)} == set()


@pytest.mark.parametrize("config", [b"{", DEEP, b"[]", b'{"config": {"Labels": {"bulkhead.service": 1}}}'])
def test_an_image_whose_configuration_cannot_be_read_is_of_no_build(shop: Shop, config: bytes) -> None:
    repository = shop.registry.repository(BUILD, "worker")
    image = shop.registry.manifest(repository, push_image(shop.registry, "worker", "v1")).document
    blob = shop.registry.put_blob(repository, config)
    image["config"] |= {"digest": blob.digest, "size": blob.size}
    digest = shop.registry.put_manifest(repository, "v1", Manifest(compact(image), OCI_MANIFEST))
    stored = shop.push("v1", ("nats", "planner"), worker=digest)
    assert "mixed" in {one.code for one in checks.examine(shop.registry, stored, shop.trust)}


def test_an_index_within_an_index_is_refused(shop: Shop) -> None:
    """A chain of them could be of any length."""
    repository, image = shop.registry.repository(BUILD, "worker"), push_image(shop.registry, "worker", "v1")
    for _ in range(2):
        row = {"mediaType": OCI_MANIFEST, "digest": image, "size": 1}
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [row]}
        image = shop.registry.put_manifest(repository, "v1", Manifest(compact(index), OCI_INDEX))
    stored = shop.push("v1", ("nats", "planner"), worker=image)
    assert "unreadable" in {one.code for one in checks.examine(shop.registry, stored, shop.trust)}


def test_a_history_that_goes_back_to_nothing_is_said(shop: Shop) -> None:
    stored = shop.ready("v1")
    row = Entry(action="rollback", release=stored.digest, version="v1", at="2026-01-01T00:00:00Z", by="somebody")
    (shop.overlays / STAGING / "promotions.jsonl").write_text(row.model_dump_json(exclude_none=True) + "\n")
    with pytest.raises(PromotionError, match=r"promotions.jsonl:1 does not fit") as error:
        shop.promote(stored, STAGING)
    assert error.value.code == "bad_history"


def test_a_version_is_built_once(shop: Shop) -> None:
    shop.push("v1")
    with pytest.raises(Refused) as error:
        shop.push("v1")
    assert error.value.code == "exists"
