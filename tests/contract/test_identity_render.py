"""The policy and what is rendered from it: complete, deterministic, accepted by a real server; keys stay private."""

import json
import os
import re
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

from bulkhead.grants import Verifier
from bulkhead.runtime.context import ServiceIdentity
from bulkhead_contracts import bounds, catalog, subjects
from bulkhead_infra.identity import keys, policy, render
from bulkhead_infra.identity.rights import account_of, derive_rights
from bulkhead_infra.nats.configuration import render_configuration
from bulkhead_infra.nats.server import ServerPlan, find_nats_server, write_configuration
from bulkhead_infra.nats.stream_sizes import GIB, StoreTooSmall
from bulkhead_infra.nats.streams import Layout, durable_configs, stream_configs


@pytest.fixture(scope="module")
def rules() -> policy.IdentityPolicy:
    return policy.load_policy()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, rules):
    found = tmp_path_factory.mktemp("run") / "identity"
    keys.ensure_keys(found, rules)
    return found


@pytest.fixture(scope="module")
def accounts(folder, rules) -> str:
    return render.render_accounts(rules, keys.public_nkeys(folder, rules))


def test_a_server_takes_it(tmp_path, accounts):
    plan = ServerPlan(tmp_path / "nats", 4222, 8222)
    conf = write_configuration(plan, accounts)
    checked = subprocess.run([find_nats_server(), "-t", "-c", conf], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    assert "sync_interval: always" in conf.read_text()
    relaxed = write_configuration(ServerPlan(tmp_path / "nats", 4222, 8222, "process"), accounts)
    assert "sync_interval: always" not in relaxed.read_text()


def test_the_same_policy_gives_the_same_text(folder, rules, accounts):
    assert render.render_accounts(policy.load_policy(), keys.public_nkeys(folder, rules)) == accounts


def test_every_identity_has_an_account_of_its_own_with_one_key(folder, rules, accounts):
    public = keys.public_nkeys(folder, rules)
    assert len(set(public.values())) == len(rules.identities)
    homes = [account_of(identity) for identity in rules.identities if identity != policy.BACKUP]
    assert len(set(homes)) == len(homes) and account_of(policy.BACKUP) == "MESH", "it copies where the streams are"
    assert re.findall(r"^  (\w+): \{$", accounts, re.M) == ["MESH", *(h for h in homes if h != "MESH")]
    for identity in rules.identities:
        assert accounts.count(public[identity]) == 1
    assert accounts.count("jetstream:") == 1


def test_no_right_covers_the_whole_api(accounts):
    assert not re.findall(r'"(?:\$JS|JSMESH)(?:\.API)?\.?[>*]?"', accounts)
    for subject in re.findall(r'"((?:\$JS|JSMESH)\.API\.[^"]*)"', accounts):
        own_words = re.fullmatch(r".*\.DIRECT\.GET\.INBOX_([A-Z_]+)\.mesh\.[a-z_]+\.([a-z_]+)\.>", subject)
        assert ">" not in subject or (own_words and own_words[1] == own_words[2].upper()), subject


def test_every_edge_of_the_catalog_is_one_export_to_its_sender(rules, accounts):
    for sender, receiver in catalog.MESH_EDGES:
        if sender in (catalog.PUBLISHER, *catalog.IN_KUBERNETES):
            continue
        line = f'{{ service: "mesh.{sender}.{receiver}.>", response_threshold: 15s, accounts: [{account_of(sender)}] }}'
        assert accounts.count(line) == 1
    for sender, receiver in catalog.RPC_EDGES - {(catalog.OUTSIDE_WORKER, "doors")}:
        assert f'{{ service: {{ account: {account_of(receiver)}, subject: "rpc.{sender}.{receiver}.>" }} }}' in accounts
    for name, worker in rules.workers.items():
        subject = f"rpc.{name}.doors.*.{worker.tenant}.>"
        assert f'{{ service: {{ account: SVC_DOORS, subject: "{subject}" }} }}' in accounts
    for name, publisher in rules.publishers.items():
        assert f'"mesh.{name}.gateway.*.{publisher.tenant}.*.-"' in accounts


def test_shards_render_one_durable_each(folder, rules):
    text = render.render_accounts(rules, keys.public_nkeys(folder, rules), {"worker": 3})
    for shard in range(3):
        assert f"CONSUMER.MSG.NEXT.INBOX_WORKER.worker-{shard}" in text
    assert "worker-3" not in text
    made = dict(_by_name(Layout({"worker": 3})))
    covered = [f for shard in range(3) for f in made[f"worker-{shard}"]["filter_subjects"]]
    assert sorted(covered) == sorted(f"mesh.*.worker.{p}.>" for p in range(bounds.PARTITIONS))
    assert "filter_subjects" not in made["planner-0"]


def _by_name(layout: Layout):
    return [(config["name"], config) for _, config in durable_configs(layout)]


@pytest.mark.parametrize("shards", [0, bounds.PARTITIONS + 1])
def test_shards_are_bounded(shards):
    with pytest.raises(ValueError, match="shards"):
        durable_configs(Layout({"worker": shards}))


def test_streams_let_nobody_forge_or_erase():
    found = {config["name"]: config for config in stream_configs(Layout())}
    assert {name for name in found if name.startswith("INBOX_")} == {subjects.inbox_stream(i) for i in catalog.INBOXES}
    for name, config in found.items():
        timers = name.startswith("TIMERS_")
        assert config["allow_rollup_hdrs"] is config["allow_msg_schedules"] is timers
        assert not config["allow_msg_ttl"] and not config["allow_atomic"] and not config["allow_msg_counter"]
        assert config["max_bytes"] > 0
        # A cached answer may be lost: its places are written over, by its one writer.
        # What is said outside lies in the gateway's inbox, too, once it has been copied there.
        kept = config["max_age"] == 0 or name.startswith("PUBLISHED_")
        assert timers or name in ("JOURNAL", "CACHE", "EVENTS") or (config["discard"] == "new" and kept)
    assert "persist_mode" in found["JOURNAL"]
    assert "persist_mode" not in {c["name"]: c for c in stream_configs(Layout(replicas=3))}["JOURNAL"]


@pytest.mark.parametrize("given", [4, 166, 1_000])
def test_streams_take_no_more_than_the_disk_that_was_given(given):
    found = stream_configs(Layout(store_gib=given))
    assert sum(one["max_bytes"] for one in found) <= given * GIB
    assert all(one["max_bytes"] > 4 * one["max_msg_size"] for one in found)
    [bound] = re.findall(r"max_file_store: (\d+)", render_configuration(ServerPlan(Path("x"), 1, 2, store_gib=given)))
    assert int(bound) >= max(given * GIB, sum(one["max_bytes"] for one in stream_configs(Layout())))


@pytest.mark.parametrize("given", [1, 3, -4, 10**9])
def test_a_store_that_is_none_says_what_to_give(given):
    with pytest.raises(StoreTooSmall, match=r"write 4 to .*infra\.capacity"):
        stream_configs(Layout(store_gib=given))


def test_keys_are_private_and_never_made_again(tmp_path, rules):
    folder = tmp_path / "identity"
    keys.ensure_keys(folder, rules)
    before = {path.name: path.read_text() for path in folder.iterdir()}
    assert set(before) == {
        *(f"{identity}.nkey" for identity in rules.identities),
        *(f"{service}.sign" for service in rules.services),
        "public.json",
        "jwks.json",
    }
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    keys.ensure_keys(folder, rules)
    assert {path.name: path.read_text() for path in folder.iterdir()} == before
    (folder / "worker.nkey").unlink()
    keys.ensure_keys(folder, rules)
    after = {path.name: path.read_text() for path in folder.iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"worker.nkey"}


def test_a_service_is_handed_its_own_keys_alone(tmp_path, folder):
    target = tmp_path / "own"
    keys.hand_over(folder, "worker", target)
    (target / "planner.nkey").write_text("left behind")
    keys.hand_over(folder, "worker", target)
    assert {path.name for path in target.iterdir()} == {"worker.nkey", "worker.sign", "public.json"}
    identity = ServiceIdentity.load(target, "worker")
    assert set(identity.public_keys) == set(catalog.SERVICES)
    Verifier.from_file(target / "public.json")


@pytest.mark.parametrize("name", ["worker.nkey", "worker.sign"])
@pytest.mark.parametrize("content", ["", "garbage", "SUAEUCO3"])
def test_a_broken_key_file_says_what_to_do(tmp_path, rules, name, content):
    keys.ensure_keys(tmp_path / "i", rules)
    (tmp_path / "i" / name).write_text(content)
    with pytest.raises(keys.KeyFileError, match=rf"{name}.*delete it"):
        keys.ensure_keys(tmp_path / "i", rules)


def test_a_key_that_others_can_read_is_refused(tmp_path, rules):
    keys.ensure_keys(tmp_path / "i", rules)
    os.chmod(tmp_path / "i" / "planner.nkey", 0o644)
    with pytest.raises(keys.KeyFileError, match="chmod 600"):
        keys.ensure_keys(tmp_path / "i", rules)


def _changed(tmp_path, change) -> policy.IdentityPolicy:
    found = yaml.safe_load(policy.POLICY_FILE.read_text())
    change(found)
    path = tmp_path / "policy.yaml"
    path.write_text(json.dumps(found))
    return policy.load_policy(path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda p: p["services"].pop("rag"), "rag"),
        (lambda p: p["services"].update(ghost={"uses": []}), "ghost"),
        (lambda p: p["services"]["worker"]["uses"].append("redrive"), "operator alone"),
        (lambda p: p["services"]["worker"]["uses"].append("everything"), "uses"),
        (lambda p: p["services"]["signer"]["uses"].append("inbox"), "inbox"),
        (lambda p: p["services"]["rag"]["uses"].append("timers"), "deciders"),
        (lambda p: p["services"]["planner"]["uses"].append("records"), "doers"),
        (lambda p: p["services"]["gateway"].update(hears=["planner"]), "live_write"),
        (lambda p: p["services"]["budget"].update(reads=["nowhere"]), "nowhere"),
        (lambda p: p["publishers"].update(gateway={"tenant": "demo", "person": "x"}), "publishers"),
        (lambda p: p.update(typo={}), "typo"),
    ],
)
def test_a_policy_that_does_not_fit_the_catalog_is_refused(tmp_path, change, says):
    with pytest.raises(policy.IdentityPolicyError, match=says):
        _changed(tmp_path, change)


def test_tenants_hold_together(tmp_path, rules):
    policy.check_publishers(rules, policy.load_tenants())
    path = tmp_path / "tenants.yaml"
    path.write_text(
        "tenants: {demo: {tools: [], document_scopes: [], task: {cost_usd_micros: 5, tokens: 5, "
        "deadline_ms: 5}, day: {cost_usd_micros: 4, tokens: 9}}}"
    )
    with pytest.raises(policy.IdentityPolicyError, match="whole day"):
        policy.load_tenants(path)
    whole = yaml.safe_load(policy.TENANTS_FILE.read_text())["tenants"]["demo"]
    for name in subjects.RESERVED_TENANTS:
        path.write_text(yaml.safe_dump({"tenants": {name: whole}}))
        with pytest.raises(policy.IdentityPolicyError, match=f"{name}: the mesh keeps facts of its own"):
            policy.load_tenants(path)
    path.write_text("tenants: [")
    with pytest.raises(policy.IdentityPolicyError, match="YAML"):
        policy.load_tenants(path)


def test_nobody_is_given_what_the_policy_does_not_name(rules):
    """A right of each kind belongs to whom the policy says: spot checks by hand, against the code that derives them."""
    found = {(r.identity, r.subject) for r in derive_rights(rules, {})}
    assert ("budget", "$KV.CONTROL.>") in found and ("planner", "$KV.CONTROL.>") not in found
    assert {who for who, subject in found if subject == "$JS.API.DIRECT.GET.JOURNAL"} == {"operator", "budget"}
    assert {who for who, subject in found if subject.startswith("timer.")} == set(catalog.DECIDERS)
    assert not [subject for who, subject in found if who == "signer" and subject.startswith(("mesh.", "blob."))]


def test_whoever_may_say_something_live_says_it(rules):
    speaks, services = (
        re.compile(r"\.live\(|publish_live\(|\bPokes\(|def describe_call\("),
        Path(__file__).parents[2] / "services/bulkhead_services",
    )
    for name, service in rules.services.items():
        texts = [path.read_text() for path in (services / name).rglob("*.py")]
        assert (policy.Use.LIVE_WRITE in service.uses) == any(speaks.search(text) for text in texts), name
