"""`python -m bulkhead_infra.promotion`: the same steps by hand, their exit codes, and JSON for what each says."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from bulkhead_infra.promotion import keys, suite
from bulkhead_infra.promotion.__main__ import main
from bulkhead_infra.promotion.keys import KEY_VARIABLE
from tests.integration.promotion.shop import Shop, ran

pytestmark = pytest.mark.nightly

SOME = ("tests/e2e/containers/test_images.py", "-k", "planner")


@pytest.fixture
def call(shop: Shop, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Calls a command with --json; (exit code, what stdout or stderr has)."""

    def calls(*arguments: object) -> tuple[int, dict]:  # type: ignore[type-arg]
        options = ["--registry", shop.place, "--trust", shop.trusted, "--overlays", shop.overlays, "--json"]
        code = main([str(one) for one in (*arguments[:1], *options, *arguments[1:])])
        said = capsys.readouterr()
        return code, json.loads((said.out or said.err).splitlines()[0])

    return calls


def test_a_release_by_commands_alone(shop: Shop, call, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    secrets = shop.folder / "keys"
    stored = shop.push("v1")
    (tmp_path / "release.json").write_text(stored.model_dump_json())
    (tmp_path / "tests.json").write_text(ran(stored).model_dump_json())
    file, key = tmp_path / "release.json", secrets / "release.pem"

    code, said = call("sign", file, "--key", key)
    assert code == 4 and said["error"]["code"] == "unattested" and "attest" in said["error"]["next"]
    assert call("attest", file, "--key", key, "--tests", tmp_path / "tests.json")[0] == 0
    code, said = call("verify", file)
    assert code == 4 and {row["code"] for row in said["refusals"]} == {"unsigned"}
    assert call("sign", file, "--key", key)[0] == 0
    run = {"suite": "e2e", "result": "PASSED", "arguments": ["tests/e2e/containers"], "whole": True}
    run |= {"by": "somebody", "finishedOn": "2026-01-01T00:01:00Z"}
    wanted = {"release": stored.digest, "stage": "build", "tests": [run], "refusals": []}
    assert call("verify", "v1") == (0, wanted)

    code, said = call("promote", "v1", "--to", "staging", "--key", secrets / "staging.pem")
    assert code == 4 and said["error"]["code"] == "incomplete" and "gateway" in said["error"]["why"]
    code, said = call("promote", "v1", "--to", "staging", "--partial", "--key", secrets / "staging.pem")
    assert code == 0 and said["release"] == stored.digest and said["action"] == "promote"
    code, said = call("rollback", "staging", "--key", secrets / "staging.pem")
    assert code == 4 and said["error"]["code"] == "no_previous"
    code, said = call("status")
    assert code == 0 and said["production"] == {"release": None}
    assert said["staging"]["release"] == stored.digest and said["staging"]["images_fit"] is True
    assert said["staging"]["tests"] == [run]


def test_some_tests_of_the_suite_are_enough_for_a_dry_run_alone(shop: Shop, call, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    stored, key = shop.push("v1"), ("--key", shop.folder / "keys/release.pem")
    (tmp_path / "tests.json").write_text(ran(stored, arguments=SOME).model_dump_json())
    assert call("attest", "v1", *key, "--tests", tmp_path / "tests.json")[0] == 0
    code, said = call("sign", "v1", *key)
    assert code == 4 and said["error"]["code"] == "untested" and " ".join(SOME) in said["error"]["why"]
    assert call("sign", "v1", *key, "--partial")[0] == 0
    code, said = call("verify", "v1")
    assert code == 4 and {row["code"] for row in said["refusals"]} == {"untested"}
    code, said = call("verify", "v1", "--partial")
    (run,) = said["tests"]
    assert code == 0 and run["arguments"] == list(SOME) and run["whole"] is False
    staging = ("staging", "--partial", "--key", shop.folder / "keys/staging.pem")
    assert call("promote", "v1", "--to", *staging)[0] == 0
    assert call("rollback", *staging)[1]["error"]["code"] == "no_previous"


@pytest.mark.parametrize("time", ["", "z", "2026-01-01", "2026-01-01T00:01:00+00:00", "2026-01-01T00:01:00Z\n"])
def test_a_result_without_a_time_is_not_attested(shop: Shop, call, tmp_path: Path, time: str) -> None:  # type: ignore[no-untyped-def]
    """The last result counts: `z` would be the last for ever."""
    stored = shop.push("v1")
    (tmp_path / "tests.json").write_text(json.dumps({**ran(stored).model_dump(), "finished_at": time}))
    key = shop.folder / "keys/release.pem"
    code, said = call("attest", "v1", "--key", key, "--tests", tmp_path / "tests.json")
    assert code == 2 and said["error"]["code"] == "result"


def test_a_result_tells_the_arguments_of_pytest_and_no_others_were_there(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, file = shop.push("v1"), tmp_path / "test_two.py"
    file.write_text("def test_one(): pass\ndef test_other(): pass\n")
    arguments = (str(file), "-c", "/dev/null", "-p", "no:cacheprovider")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-k one")
    run = suite._pytest(stored, "e2e", arguments, "tag")
    assert run.arguments == arguments and len(run.passed) == 2 and run.exit_code == 0


def test_a_result_of_another_release_is_not_attested(shop: Shop, call, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    one, other = shop.push("v1"), shop.push("v2")
    (tmp_path / "tests.json").write_text(ran(other).model_dump_json())
    key = shop.folder / "keys/release.pem"
    code, said = call("attest", one.digest, "--key", key, "--tests", tmp_path / "tests.json")
    assert code == 2 and said["error"]["code"] == "other_result"


@pytest.mark.parametrize(
    ("arguments", "exit_code", "code"),
    [
        (("verify", "v9"), 4, "missing"),
        (("verify", "sha256:12"), 2, "release"),
        (("verify", "v" * 5_000), 2, "release"),
        (("promote", "v1", "--to", "staging"), 2, "no_key"),
        (("build", "--revision", "no-such-commit"), 2, "revision"),
        (("build", "--images", "no-such-image"), 2, "image"),
        (("key", "owner", "/nowhere"), 2, "role"),
    ],
)
def test_an_error_says_what_why_and_what_next(
    call, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], exit_code: int, code: str
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    found, said = call(*arguments)
    assert (found, said["error"]["code"]) == (exit_code, code)
    assert all(said["error"][part] for part in ("what", "why", "next"))


def test_a_key_is_made_once_and_read_from_the_environment(call, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    folder = shop.folder / "made"
    code, said = call("key", "release-2027", folder)
    assert code == 0 and (folder / "release-2027.pem").stat().st_mode & 0o777 == 0o600
    assert call("key", "release-2027", folder)[1]["error"]["code"] == "key_exists"
    (shop.trusted / "release-2027.pub").write_bytes(Path(said["public"]).read_bytes())
    monkeypatch.setenv(KEY_VARIABLE, Path(said["private"]).read_text())
    stored = shop.push("v1")
    assert call("attest", stored.digest)[0] == 0
    code, said = call("verify", stored.digest)
    assert code == 4 and {row["code"] for row in said["refusals"]} == {"untested", "unsigned"}


@pytest.mark.parametrize("text", ["", "no key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_key_that_is_none_is_said(call, shop: Shop, tmp_path: Path, text: str) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "bad.pem").write_text(text)
    stored = shop.push("v1")
    code, said = call("attest", stored.digest, "--key", tmp_path / "bad.pem")
    assert code == 2 and said["error"]["code"] == "bad_key"


def test_a_folder_without_keys_trusts_nobody(call, shop: Shop) -> None:  # type: ignore[no-untyped-def]
    shop.push("v1")
    for file in shop.trusted.glob("*.pub"):
        file.unlink()
    code, said = call("verify", "v1")
    assert code == 2 and said["error"]["code"] == "no_trust"


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP256K1()], ids=lambda curve: str(curve.name))
def test_a_key_of_another_curve_is_trusted_for_nothing(call, shop: Shop, curve: ec.EllipticCurve) -> None:  # type: ignore[no-untyped-def]
    public = ec.generate_private_key(curve).public_key()
    (shop.trusted / "release-other.pub").write_bytes(public.public_bytes(keys.PEM, keys.SPKI))
    shop.push("v1")
    code, said = call("verify", "v1")
    assert code == 2 and said["error"]["code"] == "bad_key" and "P-256" in said["error"]["why"]


def test_a_key_has_one_role(call, shop: Shop) -> None:  # type: ignore[no-untyped-def]
    """Whoever signs releases would promote them, too."""
    shop.push("v1")
    release = (shop.trusted / "release.pub").read_bytes()
    (shop.trusted / "release-again.pub").write_bytes(release)
    assert call("verify", "v1")[0] == 4
    (shop.trusted / "staging-2027.pub").write_bytes(release)
    code, said = call("verify", "v1")
    assert code == 2 and said["error"]["code"] == "shared_key" and "release has the same key" in said["error"]["why"]
