"""Signing keys are rotated on disk: others know a new key before it signs, an old one ends when it is taken out."""

import json

import jwt
import pytest

from bulkhead.grants import GrantRefused, Signer, Verifier, public_of
from bulkhead.grants.key_file import kid_of
from bulkhead.runtime.context import ServiceIdentity
from bulkhead_contracts.grant import TaskGrant
from bulkhead_infra.identity import keys, policy
from tests.samples import sample

GRANT = sample(TaskGrant, expires_unix_ms=2**50)


@pytest.fixture
def folder(tmp_path):
    rules = policy.load_policy()
    keys.ensure_keys(tmp_path / "identity", rules)
    for name in ("signer", "worker"):
        keys.hand_over(tmp_path / "identity", name, tmp_path / "identity" / "services" / name)
    return tmp_path / "identity"


def signer(folder) -> Signer:
    """As the signer starts."""
    keys.hand_over(folder, "signer", folder / "services" / "signer")
    own = ServiceIdentity.load(folder / "services" / "signer", "signer")
    return Signer("signer", own.signing_seed, kid_of(own.public_keys, "signer", public_of(own.signing_seed)))


def refusal(folder, token: str) -> str:
    """What a worker says that reads its own copy now."""
    verifier = Verifier.from_file(folder / "services" / "worker" / keys.PUBLIC_FILE)
    try:
        verifier.verify_authority(token, tenant="demo", task="t1", now_unix_ms=0)
    except GrantRefused as error:
        return error.code
    return ""


def test_tokens_of_both_keys_are_good_until_the_old_one_is_retired(folder, capsys):
    old = signer(folder).sign_grant(GRANT)
    assert keys.main([str(folder), "rotate", "signer"]) == 0
    assert json.loads(capsys.readouterr().out)["rotate"] == ["signer#2"]
    new = signer(folder).sign_grant(GRANT)
    assert jwt.get_unverified_header(new)["kid"] == "signer#2"
    keys.ensure_keys(folder, policy.load_policy())
    assert (refusal(folder, old), refusal(folder, new)) == ("", ""), "and a start of the mesh keeps both"
    assert keys.retire_signing_keys(folder, "signer") == ("signer",)
    assert (refusal(folder, old), refusal(folder, new)) == ("unknown_issuer", "")
    assert keys.rotate_signing_key(folder, "signer") == "signer#3"


def test_a_key_that_was_exchanged_by_hand_ends_the_earlier_one(folder):
    old = signer(folder).sign_grant(GRANT)
    (folder / "signer.sign").unlink()
    keys.ensure_keys(folder, policy.load_policy())
    assert refusal(folder, old) == "bad_signature"


def test_the_keys_are_a_key_set_that_other_software_reads(folder):
    keys.rotate_signing_key(folder, "signer")
    token = signer(folder).sign_grant(GRANT)
    found = jwt.PyJWKSet.from_json((folder / keys.JWKS_FILE).read_text())
    key = found[jwt.get_unverified_header(token)["kid"]]
    assert jwt.decode(token, key, algorithms=["EdDSA"])["grant"]["tenant"] == "demo"


def test_a_name_that_is_no_service_is_told(folder, capsys):
    assert keys.main([str(folder), "rotate", "nobody"]) == 2
    assert "nobody.sign is missing" in capsys.readouterr().err
