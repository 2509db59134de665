"""Dead letters of a mesh elsewhere: what its gateway tells who has an API key, in the form of `bulkhead dead-letters`.

In: a gateway. Out: rows as those of the machine of the mesh; without reasons and content for who may not read them.
"""

from typing import Any
from urllib.parse import quote

from bulkhead_cli.target import GatewayTarget

PAGE = "100"
PATH = "/v1/dead-letters"


async def read_letters(target: GatewayTarget, *, everything: bool) -> list[dict[str, Any]]:
    """Every page."""
    rows: list[dict[str, Any]] = []
    async with target.mesh_client() as mesh:
        query = {"limit": PAGE, "all": "true" if everything else "false"}
        while True:
            page = await mesh.get(PATH, query)
            rows += [_operator_row(letter) for letter in page["letters"]]
            if page["next"] is None:
                return rows
            query["cursor"] = page["next"]


async def read_letter(target: GatewayTarget, letter: str) -> dict[str, Any]:
    """One, with its headers and its body as text."""
    async with target.mesh_client() as mesh:
        answer = await mesh.get(f"{PATH}/{quote(letter, safe='')}")
    body = answer["body"] + (f" ... {answer['left_out_chars']} characters more" if answer["left_out_chars"] else "")
    return _operator_row(answer["letter"]) | {"headers": answer["headers"], "body": body}


async def dismiss_letter(target: GatewayTarget, letter: str, reason: str) -> dict[str, str]:
    """Say that it needs no action."""
    async with target.mesh_client() as mesh:
        done = await mesh.dismiss_letter(letter, reason)
    mark = done["marks"][-1]
    return {"id": done["id"], "dismissed_by": mark["by"], "reason": mark["reason"]}


def _operator_row(told: dict[str, Any]) -> dict[str, Any]:
    """The row as the operator's key shows it."""
    names = ("id", "code", "reason", "service", "subject", "sequence", "buried_unix_ms", "marks")
    standing = told["marks"][-1]["what"] if told["marks"] else "open"
    return {name: told[name] for name in names} | {"standing": standing}
