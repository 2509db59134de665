"""The configuration of a local mesh: the package's files, a tenants file, and a folder of files of one's own.

In: paths and the environment of the one who starts it. Out: identities, and what processes are told; what is merged
lies in DIR/config, written anew at each start. Every problem is found before anything is started.
"""

import importlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from bulkhead.policy.cedar import CedarPolicy, CedarPolicyError
from bulkhead.policy.rule_files import MESH_POLICY, SUFFIX
from bulkhead.text.validation_errors import suggest_name
from bulkhead.tools.agents_file import agent_rows
from bulkhead.tools.catalog import tool_rows
from bulkhead.tools.mcp_file import mcp_rows
from bulkhead_contracts.tool import ToolSpec
from bulkhead_infra.identity import policy
from bulkhead_infra.identity.config_folder import IDENTITIES, TENANTS, ConfigFolder, check_tenants, read_config_folder
from bulkhead_infra.identity.config_folder import POLICY as RULES
from bulkhead_infra.identity.keys import replace_file
from bulkhead_infra.local.environment import PREFIX, setting_errors, settings_from
from bulkhead_infra.processes.child import StartFailed
from bulkhead_services.tool_executor.settings import POLICY_DIR, Settings

MERGED_FOLDER = "config"
PACKS, POLICY = PREFIX + "PACKS", PREFIX + "POLICY_DIR"
TOOL_EXECUTOR = "tool_executor"
DEFAULT_FILE = f"{MESH_POLICY}{SUFFIX}"


@dataclass(frozen=True, slots=True)
class MeshConfiguration:
    """rules: identities, with the folder's. tenants_file: the merged one. environ: with the folder's packs and rules.

    folder: None where there is none. problems: of the folder.
    """

    rules: policy.IdentityPolicy
    tenants: policy.Tenants
    tenants_file: Path
    environ: Mapping[str, str]
    folder: ConfigFolder | None
    problems: tuple[str, ...]


@contextmanager
def search_packages(environ: Mapping[str, str]) -> Iterator[None]:
    """This process finds the packages that services of that environment will find."""
    before = list(sys.path)
    sys.path += [place for place in environ.get("PYTHONPATH", "").split(os.pathsep) if place and place not in before]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


def read_configuration(
    data: Path, folder: Path | None, tenants_file: Path, environ: Mapping[str, str]
) -> MeshConfiguration:
    """Merge what there is. Raises IdentityPolicyError for a tenants file that cannot be used."""
    rules, tenants = policy.load_policy(), policy.load_tenants(tenants_file)
    if folder is None:
        policy.check_publishers(rules, tenants)
        return MeshConfiguration(rules, tenants, tenants_file, environ, None, ())
    config = read_config_folder(folder)
    problems, base = list(config.problems), policy.read_tenant_rows(tenants_file)
    try:
        tenants = check_tenants(config, base)
    except policy.IdentityPolicyError as error:
        problems.append(str(error))
    else:
        if config.tenants:
            tenants_file = data / MERGED_FOLDER / TENANTS
            _write_file(tenants_file, yaml.safe_dump({"tenants": config.merge_tenants(base)}, sort_keys=False))
    try:
        policy.check_publishers(rules, tenants)
        rules = config.add_identities(rules)
    except policy.IdentityPolicyError as error:
        problems.append(str(error))
    strangers = policy.list_unknown_tenants(config.programs, tenants)
    problems += (f"{config.path / IDENTITIES}: {line}" for line in strangers)
    problems += _unread_rules(config, tenants)
    if config.policies and environ.get(POLICY):
        problems.append(f"{config.path / RULES} and {POLICY} both name rules; move them into one folder")
    return MeshConfiguration(rules, tenants, tenants_file, _merge_environ(config, environ), config, tuple(problems))


def _write_file(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_file(path, text)


def _unread_rules(config: ConfigFolder, tenants: policy.Tenants) -> Iterator[str]:
    """Rules of tenants that there are not."""
    for name in config.policies:
        if name != DEFAULT_FILE and (tenant := name.removesuffix(SUFFIX)) not in tenants.tenants:
            way = f"there are {', '.join(sorted(tenants.tenants))}"
            yield f"{config.path / RULES / name}: no tenant {tenant}{suggest_name(tenant, tenants.tenants)}; {way}"


def _merge_environ(config: ConfigFolder, environ: Mapping[str, str]) -> dict[str, str]:
    merged = dict(environ)
    if config.packs:
        # At the end: a package of the folder must not stand in for one of the mesh.
        merged["PYTHONPATH"] = os.pathsep.join(filter(None, (environ.get("PYTHONPATH"), str(config.tools_folder))))
        try:
            named = json.loads(environ.get(PACKS) or "[]")
        except ValueError:
            named = None
        if isinstance(named, list):  # Else its check says what is wrong.
            merged[PACKS] = json.dumps([*named, *(pack for pack in config.packs if pack not in named)])
    if config.policies:
        merged[POLICY] = str(config.path / RULES)
    return merged


def check_configuration(
    config: MeshConfiguration, services: Iterable[str], environ_of: Callable[[str], Mapping[str, str]]
) -> None:
    """Check folder, settings, packs and rules before any process runs. Raises StartFailed with all problems."""
    lines, names = list(config.problems), list(services)
    with search_packages(config.environ):
        settings_lines = [line for name in names for line in setting_errors(name, environ_of(name))]
        if TOOL_EXECUTOR in names and not any(line.startswith(f"{TOOL_EXECUTOR}: ") for line in settings_lines):
            settings = settings_from(TOOL_EXECUTOR, environ_of(TOOL_EXECUTOR))
            assert isinstance(settings, Settings)
            lines += _tool_problems(config.folder, settings)
    if lines or settings_lines:
        subject = "this configuration does" if lines else "these settings do"
        raise StartFailed("\n  ".join((f"{subject} not fit; nothing was started:", *lines, *settings_lines)))


def _tool_problems(folder: ConfigFolder | None, settings: Settings) -> Iterator[str]:
    """Packs, granted tools and rules, as the executor will read them."""
    try:
        rows = tool_rows.__wrapped__(settings.packs)  # What a start before this one read is of no use.
        specs = {row.spec.name: row.spec for row in rows}
        specs |= {row.spec.name: row.spec for row in mcp_rows(settings.mcp_file, specs)}
        specs |= {row.spec.name: row.spec for row in agent_rows(settings.agents_file, specs)}
    except ValueError as error:
        yield str(error)
        return
    if folder is not None and settings.mcp_file is None and settings.agents_file is None:
        for tenant, row in folder.tenants.items():
            tools = row.get("tools")
            for tool in sorted(set(map(str, tools if isinstance(tools, list) else ())) - set(specs)):
                way = "`bulkhead tools list` lists them; packs of your own lie in tools/"
                problem = f"no tool {tool}{suggest_name(tool, specs)}"
                yield f"{folder.path / TENANTS}: tenants.{tenant}.tools: {problem}; {way}"
    yield from _rule_problems(settings.policy_dir, specs)


def _rule_problems(rules: Path, specs: Mapping[str, ToolSpec]) -> Iterator[str]:
    """The first mistake of each file."""
    try:
        CedarPolicy.load_folder(rules, specs.values(), POLICY_DIR)
        return
    except CedarPolicyError as error:
        problem = str(error)
    defaults = rules if (rules / DEFAULT_FILE).exists() else POLICY_DIR
    reported = 0
    for path in sorted(rules.glob(f"*{SUFFIX}")):
        try:
            texts = {DEFAULT_FILE: (defaults / DEFAULT_FILE).read_text(), path.name: path.read_text()}
            CedarPolicy(texts, specs.values())
        except (CedarPolicyError, OSError, UnicodeDecodeError) as error:
            yield f"{rules}: {error}"
            reported += 1
            if path.name == DEFAULT_FILE:
                return  # Every other file would be told this mistake.
    if not reported:
        yield f"{rules}: {problem}"
