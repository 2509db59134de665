"""Files of one's own beside the package's: what is added, what is refused, and that all of it is told at once."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from bulkhead_infra.identity.config_folder import MAX_YAML_BYTES, load_identities, read_config_folder
from bulkhead_infra.identity.policy import TENANTS_FILE, IdentityPolicyError, load_policy
from bulkhead_infra.local.configuration import check_configuration, read_configuration
from bulkhead_infra.local.environment import RunFacts, environ_of
from bulkhead_infra.local.rundir import RunDir
from bulkhead_infra.local.starts import hand_out_keys
from bulkhead_infra.processes.child import StartFailed

PACK = """
shout:
  description: Says a text loudly.
  effect: read
  idempotent: true
  parameters: {type: object, additionalProperties: false, required: [text], properties: {text: {type: string}}}
"""
IDENTITIES = """
publishers:
  pub_shop: {tenant: shop, person: shop-service}
subscribers:
  sub_shop: {tenant: shop, events: [task.ended]}
workers:
  wrk_shop: {tenant: shop}
"""
TENANTS = """
tenants:
  demo:
    tools: [shout]
    task: {tokens: 1000}
    callers: [jwt]
  shop:
    tools: [shout]
    document_scopes: [default]
    task: {cost_usd_micros: 1_000_000, tokens: 1_000_000, deadline_ms: 120_000}
    day: {cost_usd_micros: 1_000_000, tokens: 1_000_000}
"""
RULE = '@id("shouts") permit (principal, action == Action::"shout", resource);'


def write_files(folder: Path, files: Mapping[str, str]) -> Path:
    """Texts by their paths in the folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def whole_folder(folder: Path) -> Path:
    return write_files(
        folder,
        {
            "identities.yaml": IDENTITIES,
            "tenants.yaml": TENANTS,
            "policy/shop.cedar": RULE,
            "tools/loud_shouting/tools.yaml": PACK,
        },
    )


def test_identities_of_a_folder_stand_beside_the_packages(tmp_path: Path) -> None:
    rules = load_identities(whole_folder(tmp_path))
    assert {"pub_demo", "pub_shop", "sub_demo", "sub_shop", "wrk_demo", "wrk_shop"} <= set(rules.identities)
    assert rules.services == load_policy().services
    assert load_identities(None) == load_policy()


def test_tenants_are_merged_lists_are_added_to_and_callers_are_replaced(tmp_path: Path) -> None:
    config = read_configuration(tmp_path / "data", whole_folder(tmp_path / "own"), TENANTS_FILE, {})
    assert config.problems == () and config.tenants_file != TENANTS_FILE
    demo, shop, acme = (config.tenants.tenants[name] for name in ("demo", "shop", "acme"))
    assert "search_documents" in demo.tools and "shout" in demo.tools and shop.tools == ("shout",)
    assert (demo.task.tokens, demo.task.cost_usd_micros, demo.callers) == (1000, 5_000_000, ("jwt",))
    assert acme.day.tokens == 10_000_000
    assert config.environ == {
        "PYTHONPATH": str(tmp_path / "own" / "tools"),
        "BULKHEAD_PACKS": '["loud_shouting"]',
        "BULKHEAD_POLICY_DIR": str(tmp_path / "own" / "policy"),
    }


def test_ways_in_are_narrowed_and_never_added_to(tmp_path: Path) -> None:
    base = tmp_path / "ours.yaml"
    base.write_text(TENANTS_FILE.read_text().replace("  demo:\n", "  demo:\n    callers: [api_key, publisher]\n"))
    own = write_files(tmp_path / "own", {"tenants.yaml": "tenants: {demo: {callers: [jwt]}}"})
    with pytest.raises(IdentityPolicyError):
        read_configuration(tmp_path / "data", own, tmp_path / "gone.yaml", {})
    tenants = read_configuration(tmp_path / "data", own, base, {}).tenants
    assert tenants.tenants["demo"].callers == ("jwt",)


def check_all(tmp_path: Path, **environ: str) -> None:
    """What a start does before anything runs."""
    run = RunDir(tmp_path / "data")
    try:
        config = read_configuration(run.path, tmp_path / "own", TENANTS_FILE, environ)
        hand_out_keys(run, config.rules, ["signer", "tool_executor"])
        facts = RunFacts("nats://x", "redis://x", {"gateway": 0}, "", config.tenants_file, 1.0, {})
        check_configuration(
            config, ["signer", "tool_executor"], lambda name: environ_of(name, 0, run, facts, config.environ, {})
        )
    finally:
        run.close()


def test_a_whole_folder_passes_the_check_of_a_start(tmp_path: Path) -> None:
    whole_folder(tmp_path / "own")
    check_all(tmp_path)


def test_every_problem_is_told_at_once_with_its_file(tmp_path: Path) -> None:
    own = whole_folder(tmp_path / "own")
    write_files(
        own,
        {
            "identities.yaml": "publishers: {pub_shop: {tenent: shop, person: p}}\nworkers: {wrk_x: {}}",
            "tenants.yaml": "tenants: {demo: {tools: [shuot], task: {tokns: 1}}}",
            "identites.yaml": "",
            "policy/shpo.cedar": RULE,
            "policy/demo.cedar": 'permit (principal, action == Action::"shuot", resource);',
        },
    )
    (own / "tools" / "alone.py").write_text("")
    (own / "tools" / "json").mkdir()
    (own / "tools" / "json" / "tools.yaml").write_text(PACK)
    with pytest.raises(StartFailed) as refused:
        check_all(tmp_path, BULKHEAD_MAX_AGE_MS="none")
    told = str(refused.value)
    for part in (
        "identities.yaml: publishers.pub_shop.tenent: unknown field; did you mean tenant?",
        "tenants.yaml: tenants.demo.task.tokns: unknown field",
        "identites.yaml: nobody reads it; did you mean identities.yaml?",
        "shpo.cedar: no tenant shpo",
        "demo.cedar:1: ",
        "alone.py: is no package",
        "json: an installed package has this name",
        "tenants.demo.tools: no tool shuot; did you mean shout?",
        "signer: setting BULKHEAD_MAX_AGE_MS",
        "nothing was started",
    ):
        assert part in told, told


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"identities.yaml": "services: {gateway: {uses: [redrive]}}"}, "are the package's"),
        ({"identities.yaml": "publishers: {pub_demo: {tenant: acme, person: p}}"}, "comes with the mesh"),
        ({"identities.yaml": "publishers: {gateway: {tenant: acme, person: p}}"}, "must match"),
        ({"identities.yaml": "a: &a [x]\nb: *a"}, "no anchors"),
        ({"identities.yaml": "workers: {}\nworkers: {}"}, "workers stands twice"),
        ({"identities.yaml": "[" * 1_500}, "correct it"),
        ({"identities.yaml": "#" * (MAX_YAML_BYTES + 1)}, "at most so many are read"),
        ({"identities.yaml": "- a list"}, "must be a mapping"),
        ({"identities.yaml": "!!python/object:os.system {}"}, "correct it"),
        ({"tenants.yaml": "demo: {}"}, "rows stand under `tenants`"),
        ({"policy/rules.txt": ""}, "nobody reads it"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(tmp_path: Path, files: dict[str, str], told: str) -> None:
    with pytest.raises(IdentityPolicyError, match=told):
        load_identities(write_files(tmp_path, files))


def test_each_program_of_a_tenant_that_there_is_not_is_named_with_its_file(tmp_path: Path) -> None:
    rows = "workers: {wrk_x: {tenant: nobody}}\npublishers: {pub_x: {tenant: noone, person: p}}"
    own = write_files(tmp_path / "own", {"identities.yaml": rows})
    problems = read_configuration(tmp_path / "data", own, TENANTS_FILE, {}).problems
    assert [problem.partition(": ")[2].partition(";")[0] for problem in problems] == [
        "publishers.pub_x: tenant 'noone' is not in tenants.yaml",
        "workers.wrk_x: tenant 'nobody' is not in tenants.yaml",
    ]


def test_a_file_that_others_may_write_or_that_lies_elsewhere_decides_nothing(tmp_path: Path) -> None:
    own = write_files(tmp_path / "own", {"identities.yaml": IDENTITIES})
    (own / "identities.yaml").chmod(0o666)
    assert "everybody may write it" in read_config_folder(own).problems[0]
    assert not read_config_folder(own).programs.publishers
    (own / "identities.yaml").rename(tmp_path / "elsewhere.yaml")
    (tmp_path / "elsewhere.yaml").chmod(0o600)
    (own / "identities.yaml").symlink_to(tmp_path / "elsewhere.yaml")
    assert "leads out of the folder" in read_config_folder(own).problems[0]
    (own / "identities.yaml").unlink()
    own.chmod(0o777)
    assert "everybody may write it" in read_config_folder(own).problems[0]


def test_a_file_within_a_linked_folder_of_its_own_is_read(tmp_path: Path) -> None:
    """As Kubernetes mounts a ConfigMap."""
    write_files(tmp_path / "..now", {"identities.yaml": IDENTITIES})
    os.symlink("..now", tmp_path / "..data")
    os.symlink("..data/identities.yaml", tmp_path / "identities.yaml")
    assert not read_config_folder(tmp_path).problems


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(IdentityPolicyError, match=r"gone.*--config"):
        load_identities(tmp_path / "gone")
