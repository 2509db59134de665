"""`bulkhead tools export` and `new`: a package's tools.yaml from its code, and a package to begin with."""

import keyword
import re
from pathlib import Path

from bulkhead.tools import packs as packages
from bulkhead.tools.catalog import tool_rows
from bulkhead.tools.export import HEAD, find_declarations, render_tools_file
from bulkhead.tools.packs import PackError
from bulkhead_cli.output import CommandError, Exit, print_json
from bulkhead_cli.screen import out
from bulkhead_cli.tools.listing import bad_pack_error, named_packs

_NAME = re.compile(r"[a-z][a-z0-9_]{1,39}", re.ASCII)
TEMPLATE = Path(__file__).with_name("template")
SUFFIX = ".txt"
"""Of the template's files: none of them is code of this package."""


def export_package(package: str, *, check: bool, as_json: bool) -> Exit:
    """Write the file, or say that it is out of date. Raises CommandError."""
    named_packs((package,))
    try:
        rendered, path = render_tools_file(package, find_declarations(package)), _tools_file(package)
    except (PackError, TypeError) as error:
        raise bad_pack_error(ValueError(str(error))) from error
    before = path.read_text() if path.is_file() else ""
    if before and not before.startswith(HEAD.partition("{")[0]):
        problem = f"{path} was written by hand"
        raise CommandError(
            Exit.USAGE, problem, "move its rows to functions with @tool, or remove it", name="written_by_hand"
        )
    same = before == rendered
    if not same and not check:
        path.write_text(rendered)
        tool_rows.cache_clear()
        try:
            tool_rows((package,))
        except PackError as error:
            path.write_text(before) if before else path.unlink()
            raise bad_pack_error(error) from error
    if as_json:
        print_json({"file": str(path), "changed": not same})
    else:
        out.print(f"{path}: {'up to date' if same else 'out of date' if check else 'written'}", markup=False)
    return Exit.FAILED if check and not same else Exit.OK


def new_package(package: str, folder: Path, *, as_json: bool) -> None:
    """Write the template under this name. Raises CommandError."""
    if not _NAME.fullmatch(package) or keyword.iskeyword(package):
        raise CommandError(
            Exit.USAGE, f"{package[:80]!r} is no name of a package", "small letters, digits and _: acme_tickets"
        )
    top = folder / package.replace("_", "-")
    if top.exists():
        raise CommandError(Exit.USAGE, f"{top} is there already", "choose another name, or another folder with --in")
    written = []
    for source in sorted(TEMPLATE.rglob(f"*{SUFFIX}")):
        inner = str(source.relative_to(TEMPLATE)).removesuffix(SUFFIX).replace("PACKAGE", package)
        path = top / inner
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source.read_text().replace("PACKAGE", package).replace("PROJECT", package.replace("_", "-")))
        written.append(str(path))
    if as_json:
        print_json({"folder": str(top), "files": written})
        return
    for path_made in written:
        out.print(path_made, markup=False)
    out.print(f"next: cd {top} && bulkhead tools export {package} && pytest", style="dim", markup=False)


def _tools_file(package: str) -> Path:
    folders = packages.package_folders(package)
    if not folders:
        raise PackError(f"{package} is a module and no folder; make it a package: {package}/__init__.py")
    return folders[0] / packages.TOOLS_FILE
