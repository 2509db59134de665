"""A small HTTP server that answers as an API server does: discovery, lists by pages, tables, Status objects.

In: lists of objects by plural. Out: answers on a port of this machine; what was asked.
"""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from bulkhead_cli.cluster.collect import METRICS, NAMED, OWN

PAGE = 5
"""Items in a page, however many are asked for."""
REASONS = {401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 503: "ServiceUnavailable"}


class ApiServer:
    """See the module. statuses: HTTP status by plural or path; hangs: paths and plurals that are never answered."""

    def __init__(self, lists: Mapping[str, list[dict[str, Any]]]) -> None:
        self.lists, self.statuses, self.hangs = dict(lists), dict[str, int](), set[str]()
        self.asked = list[tuple[str, str]]()
        self.released = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                outer.asked.append((self.command, self.path))
                parts = urlsplit(self.path)
                what = parts.path.rpartition("/")[2] if "/namespaces/" in parts.path else parts.path
                if what in outer.hangs:
                    outer.released.wait(60)
                    return
                accept = self.headers.get("accept", "")
                code, body = outer.answer(parts.path, what, parse_qs(parts.query), table="as=Table" in accept)
                text = json.dumps(body).encode()
                self.send_response(code)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    @contextmanager
    def running(self) -> Iterator["ApiServer"]:
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        try:
            yield self
        finally:
            self.released.set()
            self.http.shutdown()
            self.http.server_close()

    def kubeconfig(self, folder: Path) -> Path:
        """With a context `here`, and a token that nobody may see."""
        place = folder / "kubeconfig"
        found = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
            "users": [{"name": "u", "user": {"token": "a-token-of-mine"}}],
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "elsewhere"}}],
            "current-context": "here",
        }
        place.write_text(yaml.safe_dump(found))
        return place

    def answer(self, path: str, what: str, query: Mapping[str, list[str]], *, table: bool) -> tuple[int, Any]:
        if code := self.statuses.get(what):
            return code, status(code, f"{what} is {REASONS[code].lower()}: as the test wants it")
        if (found := self._discovery(path)) is not None:
            return 200, found
        if path == "/version":
            return 200, {"major": "1", "minor": "35", "gitVersion": "v1.35.2"}
        if path == METRICS:
            return (200, {"kind": "APIResourceList"}) if "metrics" in self.lists else (404, status(404, "not found"))
        if path.startswith("/api/v1/namespaces/") and path.count("/") == 4:
            named = [one for one in self.lists["namespace"] if one["metadata"]["name"] == what]
            return (200, named[0]) if named else (404, status(404, f'namespaces "{what}" not found'))
        plural = path.rpartition("/")[2]
        if plural not in self.lists or not (
            path.startswith("/api/v1/namespaces/bulkhead/") or plural in (*OWN, "nodes")
        ):
            return 404, status(404, "the server could not find the requested resource")
        return 200, _table(self.lists[plural]) if table else self._page(self.lists[plural], query)

    def _discovery(self, path: str) -> Any:
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": []}
        if path == "/api/v1":
            rows = [
                {"name": name, "singularName": "", "namespaced": True, "kind": kind, "verbs": ["get", "list"]}
                for name, kind in zip(NAMED, ("Secret", "ConfigMap"), strict=True)
            ]
            return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "v1", "resources": rows}
        return None

    def _page(self, items: list[dict[str, Any]], query: Mapping[str, list[str]]) -> dict[str, Any]:
        begin = int(query.get("continue", ["0"])[0])
        end = begin + min(PAGE, int(query["limit"][0]))
        more = {"continue": str(end)} if end < len(items) else {}
        return {"kind": "List", "apiVersion": "v1", "metadata": more, "items": items[begin:end]}


def status(code: int, message: str) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": REASONS[code],
        "code": code,
    }


def _table(items: list[dict[str, Any]]) -> dict[str, Any]:
    names = [one["metadata"]["name"] for one in items]
    columns = [
        {"name": name, "type": "string", "format": "", "description": "", "priority": 0} for name in ("Name", "Data")
    ]
    rows = [
        {
            "cells": [name, "3"],
            "object": {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": name}},
        }
        for name in names
    ]
    return {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "columnDefinitions": columns, "rows": rows}
