"""Files of one's own beside the package's: outside programs, tenants, policies of tools, packs.

    identities.yaml   publishers, subscribers and workers, in the form of policy.yaml; added to the package's
    tenants.yaml      rows of tenants, or parts of rows, merged over those of the tenants file in force
    policy/*.cedar    a tenant's rules; with a default.cedar, the house's
    tools/NAME/       packs (bulkhead.tools.packs), found by themselves

In: a folder (BULKHEAD_CONFIG_DIR). Out: its checked content, with every problem at once: what nobody would read is a
problem too, because a mistyped name must not be silent. Nothing of a pack is run.
"""

import importlib.util
import os
import re
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from bulkhead.policy.rule_files import MAX_FILE_BYTES, MAX_FILES, MESH_POLICY, SUFFIX
from bulkhead.text.validation_errors import suggest_name
from bulkhead.tools.packs import PROMPTS_FOLDER, TOOLS_FILE
from bulkhead_infra.identity import policy
from bulkhead_infra.identity.policy import IdentityPolicyError, OutsidePrograms, Tenants, describe_misfits

CONFIG_VARIABLE = "BULKHEAD_CONFIG_DIR"
IDENTITIES, TENANTS, POLICY, TOOLS = "identities.yaml", "tenants.yaml", "policy", "tools"
KNOWN = (IDENTITIES, TENANTS, POLICY, TOOLS)
MAX_YAML_BYTES = 1024 * 1024
MAX_PACKS = 64
REPLACED_LISTS = frozenset({"callers"})
"""Lists of a tenant that narrow what it may: adding to them would widen it unseen."""
_PACK = re.compile(r"[a-z_][a-z0-9_]{0,63}", re.ASCII)
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ConfigFolder:
    """Content of a folder. tenants: parts of rows, unchecked. policies: texts by file name. problems: all of them."""

    path: Path
    programs: OutsidePrograms = OutsidePrograms()
    tenants: Mapping[str, Row] = field(default_factory=dict)
    policies: Mapping[str, str] = field(default_factory=dict)
    packs: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def tools_folder(self) -> Path:
        return self.path / TOOLS

    def add_identities(self, rules: policy.IdentityPolicy) -> policy.IdentityPolicy:
        """The rules with the folder's rows. Raises IdentityPolicyError."""
        return policy.add_programs(rules, self.programs, self.path / IDENTITIES)

    def merge_tenants(self, base: Mapping[str, Row]) -> dict[str, Row]:
        """Rows of all tenants: lists are added to, other values replaced."""
        return {**base, **{name: _merge_row(base.get(name, {}), row) for name, row in self.tenants.items()}}


def load_identities(folder: Path | None) -> policy.IdentityPolicy:
    """The package's identities and those of a folder. Raises IdentityPolicyError with every problem of the folder."""
    rules = policy.load_policy()
    if folder is None:
        return rules
    config = read_config_folder(folder)
    if config.problems:
        raise IdentityPolicyError("\n  ".join((f"{folder} cannot be used:", *config.problems)))
    return config.add_identities(rules)


def read_config_folder(path: Path) -> ConfigFolder:
    """The content of a folder with what is wrong in it; nothing is raised."""
    reader = _FolderReader(path)
    try:
        return reader.read_content()
    except OSError as error:
        reason = f"{error.filename or path} cannot be read: {error.strerror}; {CONFIG_VARIABLE} (--config) names it"
        return ConfigFolder(path, problems=(reason,))


class _FolderReader:
    def __init__(self, path: Path) -> None:
        self._path, self._problems = path, list[str]()

    def read_content(self) -> ConfigFolder:
        self._is_safe(self._path)
        names = {entry.name for entry in self._entries(self._path)}
        for name in sorted(names - set(KNOWN)):
            way = f"a folder of files of one's own has {', '.join(KNOWN)}"
            self._problems.append(f"{self._path / name}: nobody reads it{suggest_name(name, KNOWN)}; {way}")
        programs, tenants = OutsidePrograms(), dict[str, Row]()
        if IDENTITIES in names and (document := self._read_yaml(self._path / IDENTITIES)) is not None:
            programs = self._read_programs(document)
        if TENANTS in names and (document := self._read_yaml(self._path / TENANTS)) is not None:
            tenants = self._read_tenants(document)
        policies = self._read_policies() if POLICY in names else {}
        packs = self._find_packs() if TOOLS in names else ()
        return ConfigFolder(self._path, programs, tenants, policies, packs, tuple(self._problems))

    def _entries(self, folder: Path) -> Iterator[Path]:
        """Entries to read: none that is hidden (editors, version control), and no page for people."""
        for entry in sorted(folder.iterdir()):
            if not entry.name.startswith(".") and entry.name not in ("README.md", "__pycache__"):
                yield entry

    def _is_safe(self, path: Path) -> bool:
        """A file that others can write, or that lies elsewhere, decides nothing here."""
        status = path.stat()
        if path != self._path and self._path.resolve() not in path.resolve().parents:
            self._problems.append(f"{path}: leads out of the folder; put the file itself there")
        elif status.st_mode & stat.S_IWOTH:
            self._problems.append(f"{path}: everybody may write it; chmod o-w {path}")
        elif status.st_uid not in (0, os.geteuid()):
            self._problems.append(f"{path}: belongs to another user (uid {status.st_uid}); chown it to who starts this")
        else:
            return True
        return False

    def _read_text(self, path: Path, most: int) -> str | None:
        if not self._is_safe(path):
            return None
        if not path.is_file():
            self._problems.append(f"{path}: is no file; see docs/how-to/services-on-the-bus.md")
            return None
        with path.open("rb") as file:
            raw = file.read(most + 1)
        if len(raw) > most:
            self._problems.append(f"{path}: has more than {most} bytes; at most so many are read")
            return None
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            self._problems.append(f"{path}: byte {error.start} is no UTF-8; write it in UTF-8")
            return None

    def _read_yaml(self, path: Path) -> Row | None:
        if (text := self._read_text(path, MAX_YAML_BYTES)) is None:
            return None
        try:
            document = yaml.load(text, _PlainLoader)  # noqa: S506 - a SafeLoader that takes less
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            self._problems.append(f"{path}: {' '.join(str(error).split())[:300]}; correct it")
            return None
        if document is None or isinstance(document, dict):
            return document or {}
        self._problems.append(f"{path}: must be a mapping; see the package's file of this form")
        return None

    def _read_programs(self, document: Row) -> OutsidePrograms:
        path = self._path / IDENTITIES
        if "services" in document or "operator" in document:
            self._problems.append(f"{path}: rights of services and operator are the package's; remove them here")
            return OutsidePrograms()
        try:
            return OutsidePrograms.model_validate(document)
        except ValidationError as error:
            self._problems.append(describe_misfits(path, error, OutsidePrograms))
            return OutsidePrograms()

    def _read_tenants(self, document: Row) -> dict[str, Row]:
        path, rows = self._path / TENANTS, document.get("tenants") or {}
        if unknown := sorted(map(str, set(document) - {"tenants"})):
            self._problems.append(f"{path}: {unknown[0]}: unknown field; rows stand under `tenants`")
        if not isinstance(rows, dict) or not all(isinstance(row, dict) for row in rows.values()):
            self._problems.append(f"{path}: tenants: must be a mapping of names to rows")
            return {}
        return {str(name): row for name, row in rows.items()}

    def _read_policies(self) -> dict[str, str]:
        folder, texts = self._path / POLICY, dict[str, str]()
        for path in self._entries(folder) if self._is_safe(folder) else ():
            if path.suffix != SUFFIX:
                self._problems.append(
                    f"{path}: nobody reads it; rules stand in {MESH_POLICY}{SUFFIX} and TENANT{SUFFIX}"
                )
            elif len(texts) == MAX_FILES:
                self._problems.append(f"{folder}: at most {MAX_FILES} files are read; remove some")
                break
            elif (text := self._read_text(path, MAX_FILE_BYTES)) is not None:
                texts[path.name] = text
        return texts

    def _find_packs(self) -> tuple[str, ...]:
        folder, packs = self._path / TOOLS, list[str]()
        for path in self._entries(folder) if self._is_safe(folder) else ():
            if problem := _pack_problem(path):
                self._problems.append(f"{path}: {problem}")
            elif all(list(map(self._is_safe, (path, *sorted(path.rglob("*")))))):
                packs.append(path.name)
        if len(packs) > MAX_PACKS:
            self._problems.append(f"{folder}: at most {MAX_PACKS} packs are read; remove some")
        return tuple(packs[:MAX_PACKS])


def _pack_problem(path: Path) -> str:
    if not path.is_dir():
        return f"is no package; `bulkhead tools new {path.stem}` makes one, whose inner folder belongs here"
    if not _PACK.fullmatch(path.name):
        return "is no name of a package; write it as in an import, e.g. acme_tickets"
    if not (path / TOOLS_FILE).is_file() and not (path / PROMPTS_FOLDER).is_dir():
        nested_pack = next((inner.parent for inner in sorted(path.glob(f"*/{TOOLS_FILE}"))), None)
        way = (
            f"move {nested_pack} here"
            if nested_pack
            else f"`bulkhead tools export {path.name}` writes {TOOLS_FILE} in it"
        )
        return f"has neither {TOOLS_FILE} nor {PROMPTS_FOLDER}/; {way}"
    if path.name in sys.stdlib_module_names or _is_installed(path):
        return "an installed package has this name; choose another, or remove this one and name that in BULKHEAD_PACKS"
    return ""


def _is_installed(path: Path) -> bool:
    """Somewhere else than here: the folder of packs may be on the path already."""
    spec = importlib.util.find_spec(path.name)
    places = list(
        (spec.submodule_search_locations if spec else None) or ([spec.origin] if spec and spec.origin else ())
    )
    return any(Path(place).resolve() != path.resolve() for place in places)


def _merge_row(base: Row, row: Row) -> Row:
    """One tenant's. Mappings such as `task` are merged by field; what stands deeper is replaced."""
    merged = dict(base)
    for name, value in row.items():
        before = base.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            merged[name] = {
                **before,
                **{key: _merge_value(key, before.get(key), inner) for key, inner in value.items()},
            }
        else:
            merged[name] = _merge_value(name, before, value)
    return merged


def _merge_value(name: str, before: Any, value: Any) -> Any:
    if isinstance(before, list) and isinstance(value, list) and name not in REPLACED_LISTS:
        return [*before, *(item for item in value if item not in before)]
    return value


def check_tenants(config: ConfigFolder, base: Mapping[str, Row]) -> Tenants:
    """All tenants as the folder makes them. Raises IdentityPolicyError that names the folder's file."""
    return policy.build_tenants({"tenants": config.merge_tenants(base)}, config.path / TENANTS)


class _PlainLoader(yaml.SafeLoader):
    """YAML without anchors, whose copies could be without end, and without a key that stands twice."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            place = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.YAMLError(f"{place}: no anchors and aliases; write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        earlier_keys = set[str]()
        for key, _ in node.value:
            if str(key.value) in earlier_keys:
                raise yaml.YAMLError(f"{key.start_mark}: {key.value} stands twice; leave one")
            earlier_keys.add(str(key.value))
        return super().construct_mapping(node, deep)
