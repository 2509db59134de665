"""`bulkhead tools export` and `new`: a package's tools.yaml from its code, and a package to begin with."""

import keyword
import re
from pathlib import Path

from bulkhead.tools import packs as packages
from bulkhead.tools.catalog import rows
from bulkhead.tools.export import HEAD, declarations, text
from bulkhead.tools.packs import PackError
from bulkhead_cli.output import Exit, Stop, out, print_json
from bulkhead_cli.tools.listing import named_packs, unusable

_NAME = re.compile(r"[a-z][a-z0-9_]{1,39}", re.ASCII)
TEMPLATE = Path(__file__).with_name("template")
SUFFIX = ".txt"
"""Of the template's files: none of them is code of this package."""


def export_package(package: str, *, check: bool, as_json: bool) -> Exit:
    """Write the file, or say that it is out of date. Raises Stop."""
    named_packs((package,))
    try:
        made, path = text(package, declarations(package)), _file(package)
    except (PackError, TypeError) as error:
        raise unusable(ValueError(str(error))) from error
    before = path.read_text() if path.is_file() else ""
    if before and not before.startswith(HEAD.partition("{")[0]):
        what = f"{path} was written by hand"
        raise Stop(Exit.USAGE, what, "move its rows to functions with @tool, or remove it", name="written_by_hand")
    same = before == made
    if not same and not check:
        path.write_text(made)
        rows.cache_clear()
        try:
            rows((package,))
        except PackError as error:
            path.write_text(before) if before else path.unlink()
            raise unusable(error) from error
    if as_json:
        print_json({"file": str(path), "changed": not same})
    else:
        out.print(f"{path}: {'up to date' if same else 'out of date' if check else 'written'}", markup=False)
    return Exit.FAILED if check and not same else Exit.OK


def new_package(package: str, folder: Path, *, as_json: bool) -> None:
    """Write the template under this name. Raises Stop."""
    if not _NAME.fullmatch(package) or keyword.iskeyword(package):
        raise Stop(Exit.USAGE, f"{package[:80]!r} is no name of a package", "small letters, digits and _: acme_tickets")
    top = folder / package.replace("_", "-")
    if top.exists():
        raise Stop(Exit.USAGE, f"{top} is there already", "choose another name, or another folder with --in")
    made = []
    for source in sorted(TEMPLATE.rglob(f"*{SUFFIX}")):
        inner = str(source.relative_to(TEMPLATE)).removesuffix(SUFFIX).replace("PACKAGE", package)
        path = top / inner
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source.read_text().replace("PACKAGE", package).replace("PROJECT", package.replace("_", "-")))
        made.append(str(path))
    if as_json:
        print_json({"folder": str(top), "files": made})
        return
    for path_made in made:
        out.print(path_made, markup=False)
    out.print(f"next: cd {top} && bulkhead tools export {package} && pytest", style="dim", markup=False)


def _file(package: str) -> Path:
    found = packages.folders(package)
    if not found:
        raise PackError(f"{package} is a module and no folder; make it a package: {package}/__init__.py")
    return found[0] / packages.TOOLS_FILE
