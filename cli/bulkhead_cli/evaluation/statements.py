"""`bulkhead eval keygen` and `verify`, and the statement that `eval run --sign` writes.

In: key files, a run's report, a statement and what it is to fit. Out: files, a summary or JSON, an exit code.
"""

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bulkhead.client import Mesh
from bulkhead.evaluation.reports.report import EvaluationReport
from bulkhead.evaluation.reports.statement import EvaluatedThings, build_statement, digest_document
from bulkhead.evaluation.statement import (
    Expectation,
    StatementError,
    find_statement_misfits,
    load_key,
    make_key,
    sign_statement,
    verify_envelope,
)
from bulkhead_cli.output import CommandError, Exit, print_json
from bulkhead_cli.screen import out
from bulkhead_contracts import bounds
from bulkhead_contracts.prompt import PRODUCTION, ReleasedPrompt

STATEMENT_FILE = "statement.json"
TOOL_FIELDS = {"name", "about", "effect", "egress", "served_by"}
"""Parts of a tool as a model is offered it; the others say how things are now."""
SHA256_PREFIX = "sha256:"
SET_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class StatementRequest:
    """The key by which a statement is signed, and the images whose digests it names."""

    key: Path
    images: tuple[str, ...] = ()


def check_set_name(case_file: Path) -> None:
    """Raises CommandError where a statement cannot name the set of a file."""
    if not SET_NAME.fullmatch(case_file.stem):
        hint = "rename the file: letters, digits, `_`, `.` and `-`, 64 at most"
        raise CommandError(Exit.USAGE, f"{case_file.stem[:80]!r} is no name of a set", hint)


def check_request(case_file: Path, request: StatementRequest) -> None:
    """Raises CommandError for what would keep a statement from being signed, before anything is paid."""
    check_set_name(case_file)
    parse_digests(request.images)
    try:
        load_key(request.key)
    except StatementError as error:
        raise CommandError(Exit.USAGE, str(error), error.hint) from error


def make_key_file(path: Path, *, as_json: bool) -> Exit:
    """Make a key pair. Raises CommandError."""
    try:
        public_key = make_key(path)
    except (StatementError, OSError) as error:
        hint = error.hint if isinstance(error, StatementError) else "name a file in a folder that you may write"
        raise CommandError(Exit.USAGE, str(error), hint) from error
    if as_json:
        print_json({"private_key": str(path), "public_key": public_key})
    else:
        out.print(f"private key: {path} (keep it with the evaluator alone)", markup=False)
        out.print(f"public key:  {public_key} (for `keys` of a gate, and --key)", markup=False)
    return Exit.OK


def verify_statement(
    path: Path, public_keys: Iterable[str], pairs: Mapping[str, Iterable[str]], expected: Expectation, *, as_json: bool
) -> Exit:
    """Verify a statement, and hold it to what is expected. pairs: `prompts` and `images`, each NAME=DIGEST. Raises
    CommandError for files and options that cannot be read."""
    prompts, images = (parse_digests(pairs[kind]) for kind in ("prompts", "images"))
    expected = replace(expected, prompts=prompts, images=images)
    try:
        text = path.read_bytes()[: bounds.MAX_STATEMENT_BYTES + 1].decode()
        verified = verify_envelope(text, [_read_public_key(key) for key in public_keys])
        now_unix_ms = time.time_ns() // 1_000_000
        problems = [row.reason for row in find_statement_misfits(verified.statement, expected, now_unix_ms)]
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(Exit.USAGE, f"{path} cannot be read: {error}", "name a statement.json") from error
    except StatementError as error:
        problems, verified = [f"{error}; {error.hint}"], None
    if as_json:
        statement = verified.statement.model_dump(mode="json") if verified is not None else None
        print_json({"fits": not problems, "problems": problems, "statement": statement})
    else:
        for problem in problems:
            out.print(problem, style="red", markup=False)
        if verified is not None and not problems:
            predicate = verified.statement.predicate
            line = f"{predicate.passed:.0%} of {predicate.runs} runs of {predicate.case_set} passed; signed by "
            out.print(f"{line}{verified.key_id[:12]}", markup=False)
    return Exit.FAILED if problems else Exit.OK


def parse_digests(pairs: Iterable[str]) -> dict[str, str]:
    """NAME=DIGEST, with or without `sha256:`. Raises CommandError."""
    digests = {}
    for pair in pairs:
        name, _, digest = pair.rpartition("=")
        digest = digest.removeprefix(SHA256_PREFIX)
        if not name or len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise CommandError(
                Exit.USAGE, f"{pair[:120]!r} is no NAME=DIGEST", "write worker=sha256: and 64 hex digits"
            )
        digests[name] = digest
    return digests


def parse_models(text: str) -> frozenset[str] | None:
    """Names with commas between, or a file of them, one a line; None for none. Raises CommandError."""
    if not text:
        return None
    try:
        lines = Path(text).read_text().splitlines() if Path(text).is_file() else text.split(",")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(Exit.USAGE, f"{text} cannot be read: {error}", "name a text file, or models") from error
    return frozenset(name.strip() for name in lines if name.strip() and not name.startswith("#"))


async def read_things(mesh: Mesh, case_set: str, release: str, images: Iterable[str]) -> EvaluatedThings:
    """Digests of what the mesh has now, for tasks that name this label. Raises CommandError, MeshError."""
    prompts = {row["prompt"]: row["shipped_sha256"] for row in (await mesh.prompts())["prompts"]}
    releases = (await mesh.releases(release or PRODUCTION))["releases"]
    if releases and releases[0].get("canary"):
        reason = f"a canary stands at {release or PRODUCTION}: some tasks get other prompts than others"
        raise CommandError(Exit.USAGE, reason, "end the canary, or evaluate it: `bulkhead prompts evaluate`")
    rows = [ReleasedPrompt.model_validate(row) for row in (releases[0]["prompts"] if releases else ())]
    prompts |= {row.prompt: row.filled_sha256 for row in rows}
    return EvaluatedThings(case_set, prompts, await read_tools(mesh), parse_digests(images))


async def read_tools(mesh: Mesh) -> dict[str, str]:
    """Digests of the tools that the tenant's tasks may use. Raises MeshError."""
    page = await mesh.tools()
    return {row.name: digest_document(row.model_dump(mode="json", include=TOOL_FIELDS)) for row in page.tools}


def write_statement(
    report: EvaluationReport, things: EvaluatedThings, key: Path, min_pass: float | None, folder: Path
) -> str:
    """Sign the statement of a run, and write it into its folder; returns the envelope. Raises CommandError."""
    try:
        statement = build_statement(report, things, min_pass=min_pass, made_unix_ms=time.time_ns() // 1_000_000)
        envelope = sign_statement(statement, load_key(key))
        (folder / STATEMENT_FILE).write_text(envelope + "\n")
    except StatementError as error:
        raise CommandError(Exit.USAGE, str(error), error.hint) from error
    except OSError as error:
        raise CommandError(Exit.FAILED, f"{folder} cannot be written: {error}", "make room there") from error
    return envelope


def _read_public_key(text: str) -> str:
    """A public key, given or in a file. Raises CommandError."""
    key = Path(text).read_text().strip() if len(text) != 64 and Path(text).is_file() else text
    if len(key) != 64 or not set(key) <= set("0123456789abcdef"):
        raise CommandError(Exit.USAGE, f"{text[:80]!r} is no public key", "give the 64 hex digits of `eval keygen`")
    return key
