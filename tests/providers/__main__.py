"""Feed recorded answers of real providers through our wire forms: `python -m tests.providers DIR`.

DIR holds VCR cassettes (YAML), for example a fetched copy of pydantic/pydantic-ai. Of each recorded answer, streamed or
not, text, tool calls, end and usage must equal what the record holds; an API that is not spoken is counted by its host.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import yaml

from bulkhead_services.model_gateway.providers import errors
from bulkhead_services.model_gateway.providers.forms import FORMS, Api
from bulkhead_services.model_gateway.providers.port import ProviderFault
from bulkhead_services.model_gateway.providers.sse import SseDecoder
from tests.providers import expected

CHUNK = 61
"""Bytes that are fed at a time: a prime, so that cuts fall anywhere."""
PATHS: dict[str, Api] = {
    "/chat/completions": "openai-chat",
    "/responses": "openai-responses",
    "/messages": "anthropic",
    ":generateContent": "gemini",
    ":streamGenerateContent": "gemini",
}
NO_MODEL = ("GET", "DELETE")


class Recorded(NamedTuple):
    """One recorded answer."""

    file: Path
    host: str
    path: str
    status: int
    headers: dict[str, str]
    body: bytes


def recorded(folder: Path) -> Iterator[Recorded]:
    """Every answer to a request over HTTP that is not a plain read."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for file in sorted(folder.rglob("*.yaml")):
        try:
            cassette = yaml.load(file.read_bytes(), loader)
        except yaml.YAMLError:
            continue
        rows = cassette.get("interactions") if isinstance(cassette, dict) else None
        for row in rows if isinstance(rows, list) else ():
            request, response = row.get("request"), row.get("response")
            if not isinstance(request, dict) or not isinstance(response, dict) or request["method"].upper() in NO_MODEL:
                continue
            url = urlsplit(request["uri"])
            headers = {name.lower(): values[0] for name, values in response["headers"].items() if values}
            yield Recorded(file, url.hostname or "", url.path, response["status"]["code"], headers, _body(response))


def _body(response: dict[str, Any]) -> bytes:
    if "parsed_body" in response:
        return json.dumps(response["parsed_body"]).encode()
    text = (response.get("body") or {}).get("string") or ""
    return text if isinstance(text, bytes) else text.encode()


def api_of(path: str) -> Api | None:
    """The wire form that an address speaks."""
    return next((api for end, api in PATHS.items() if path.endswith(end)), None)


def check(row: Recorded, api: Api) -> list[str]:
    """What of one answer differs from its record."""
    if row.status != 200:
        fault = errors.fault_of_status(row.status, row.headers, row.body)
        return [] if fault.code and fault.message else ["an error without a message"]
    assembly = FORMS[api].assembly_type()
    if "json" in row.headers.get("content-type", ""):
        assembly.feed_body(row.body)
        wanted = expected.of_body(api, json.loads(row.body))
    else:
        decoder = SseDecoder()
        events = [event for at in range(0, len(row.body), CHUNK) for event in decoder.feed(row.body[at : at + CHUNK])]
        for event in (*events, *decoder.flush()):
            if assembly.over or assembly.fault:
                break
            assembly.feed_event(event)
        wanted = expected.of_stream(api, row.body.decode())
    said = assembly.result()
    if isinstance(said, ProviderFault):
        return [] if wanted.error else [f"{said.code}: {said.message}"]
    given = said.usage
    counts = (given.input_tokens, given.output_tokens, given.cached_input_tokens) if given else None
    calls = [(call.name, expected.arguments(call.arguments_json)) for call in said.calls]
    pairs = {
        "text": (said.text, wanted.text),
        "calls": (calls, wanted.calls),
        "finish": (said.finish, wanted.finish),
        "usage": (counts, wanted.usage),
    }
    return [
        f"{name}: {ours!r:.200} but recorded {theirs!r:.200}"
        for name, (ours, theirs) in pairs.items()
        if ours != theirs
    ]


def main() -> int:
    """Print a count per API and each difference; 1 when there is one."""
    parser = argparse.ArgumentParser(prog="python -m tests.providers", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="a folder with cassettes, looked through to its leaves"
    )
    parser.add_argument("--json", action="store_true", help="the counts as JSON")
    options = parser.parse_args()
    same: Counter[str] = Counter()
    differ: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for row in recorded(options.folder):
        api = api_of(row.path)
        if api is None:
            refused[f"{row.host}{row.path if row.host.startswith('api.') else ''}"] += 1
            continue
        stream = "" if "json" in row.headers.get("content-type", "") else ", streamed"
        name = f"{api}{stream}" if row.status == 200 else f"{api}, errors"
        try:
            complaints = check(row, api)
        except Exception as error:
            complaints = [f"raises {type(error).__name__}: {error}"]
        same[name] += not complaints
        differ[name] += bool(complaints)
        for complaint in complaints:
            print(f"{row.file.relative_to(options.folder)}: {complaint}", file=sys.stderr)
    counts = {name: {"equal": same[name], "differ": differ[name]} for name in sorted({*same, *differ})}
    if options.json:
        print(json.dumps({"apis": counts, "not_spoken": dict(refused.most_common())}, indent=1))
    else:
        for name, row_counts in counts.items():
            print(f"{name:30} {row_counts['equal']:5} equal {row_counts['differ']:4} differ")
        print(f"{'all':30} {same.total():5} equal {differ.total():4} differ; {refused.total()} not spoken")
    return 1 if differ.total() or not same.total() else 0


if __name__ == "__main__":
    sys.exit(main())
