"""The room of tools and policies: what the tenant has, what its rules say of each tool, and what a call would be.

In: visits; forms by which a person tries a call, halts a tool, lifts that, or resets its breaker. Out: pages. A trial
calls nothing: the API answers it as the executor's gate would.
"""

import asyncio
import json
from urllib.parse import quote

from starlette.responses import Response
from starlette.routing import Route

from bulkhead.gateway_api.query import OPERATORS, OVERSEERS
from bulkhead_contracts import bounds
from bulkhead_services.gateway.console.api import ApiRefused, Json
from bulkhead_services.gateway.console.approvals import TRUST
from bulkhead_services.gateway.console.blocks import indent_json
from bulkhead_services.gateway.console.coordination import PATHS
from bulkhead_services.gateway.console.models import ROWS, SPAN, rows_by_name
from bulkhead_services.gateway.console.visits import KEY_FIELD, ConsoleRoutes, Visit, redirect_to

RECENT_TASKS, RECENT_CALLS = 5, 12
TRIAL_TEXTS = (("asker", "user"), ("document", "retrieved"), ("answer", "tool"))
"""Texts of the form of a trial: the field, and who is behind it."""
TRIAL_FIELDS = ("arguments", "asker", "document", "document_name", "answer", "answer_name", "role", "feature")
SPOKEN = {"permit": "granted", "ask": "waiting", "forbid": "denied"}
"""The colour of a ruling's word."""


class ConsoleToolRoutes(ConsoleRoutes):
    """The routes under /tools."""

    def routes(self) -> list[Route]:
        """Routes of the pages of tools."""
        return [
            self.factory.get_route("/tools", self.list_tools),
            self.factory.get_route("/tools/{tool}", self.show_tool),
            self.factory.get_route("/tools/{tool}/state", self.show_state),
            self.factory.post_route("/tools/{tool}/trial", self.try_policy),
            self.factory.post_route("/tools/{tool}/{act}", self.submit_action),
        ]

    async def list_tools(self, visit: Visit) -> Response:
        """GET /tools"""
        page, health = await asyncio.gather(visit.get("/v1/tools"), _read_health(visit))
        return visit.render_page(
            "tools/list.html", tools=page["tools"], more=page["more"], health=health, spoken=SPOKEN, span=SPAN
        )

    async def show_tool(self, visit: Visit) -> Response:
        """GET /tools/{tool}"""
        document = await visit.get(_api_path(visit))
        form = {"arguments": indent_json(document["sample_json"])}
        return await self._render_tool(visit, document, form)

    async def show_state(self, visit: Visit) -> Response:
        """GET /tools/{tool}/state: what an open page reads again, how the tool stands now"""
        return visit.render_page("tools/state_page.html", **await _read_state(visit))

    async def try_policy(self, visit: Visit) -> Response:
        """POST /tools/{tool}/trial"""
        form = await visit.read_form()
        if visit.request.headers.get("hx-request"):
            return visit.render_page(
                "tools/ruling_page.html", **await _rule_on(visit, form), spoken=SPOKEN, trust=TRUST
            )
        return await self._render_tool(visit, await visit.get(_api_path(visit)), form, await _rule_on(visit, form))

    async def submit_action(self, visit: Visit) -> Response:
        """POST /tools/{tool}/{act}: halt, resume or reset"""
        form = await visit.read_form()
        body = {"scope": "tool", "name": _tool_name(visit), "reason": form.get("reason", "")}
        path = PATHS.get(visit.request.path_params["act"], "/v1/no-such-act")
        await visit.post(path, body, form.get(KEY_FIELD, ""))
        return redirect_to(visit.request, _page_path(visit))

    @staticmethod
    async def _render_tool(visit: Visit, document: Json, form: dict[str, str], ruling: Json | None = None) -> Response:
        state, calls = await asyncio.gather(_read_state(visit), _read_calls(visit))
        spec = document["spec"]
        return visit.render_page(
            "tools/tool.html",
            document=document,
            tool=document["tool"],
            spec=spec,
            parameters=indent_json(spec["parameters_json"]),
            output=indent_json(spec.get("output_json", "")),
            may_try=visit.claim.role in OVERSEERS.names,
            form=dict.fromkeys(TRIAL_FIELDS, "") | form,
            spoken=SPOKEN,
            trust=TRUST,
            max_chars=bounds.MAX_TRIAL_SOURCE_CHARS,
            **(ruling or {"ruling": None, "refused_trial": None}),
            **state,
            **calls,
        )


def trial_body(tool: str, form: dict[str, str]) -> Json:
    """The request of a trial, from the fields of its form. Raises ApiRefused where the arguments are no JSON object."""
    try:
        arguments = json.loads(form.get("arguments") or "{}")
    except (ValueError, RecursionError) as error:
        raise _unfit_arguments(f"they are not JSON: {error}") from error
    if not isinstance(arguments, dict):
        raise _unfit_arguments("they must be one JSON object")
    sources = [
        {"source": source, "name": form.get(f"{field}_name", ""), "content": form[field]}
        for field, source in TRIAL_TEXTS
        if form.get(field)
    ]
    body: Json = {"tool": tool, "arguments": arguments, "sources": sources}
    return body | {name: form[name] for name in ("role", "feature") if form.get(name)}


def _unfit_arguments(detail: str) -> ApiRefused:
    return ApiRefused(
        422, {"title": "The arguments do not fit", "detail": detail, "hint": "send a JSON object that fits the schema"}
    )


async def _rule_on(visit: Visit, form: dict[str, str]) -> Json:
    """The ruling, or why there is none: a form that does not fit stays where it is, to be mended."""
    try:
        body = trial_body(_tool_name(visit), form)
        return {"ruling": await visit.post("/v1/policy-trials", body, ""), "refused_trial": None}
    except ApiRefused as error:
        if error.status == 401:
            raise
        return {"ruling": None, "refused_trial": error}


async def _read_health(visit: Visit) -> Json:
    """By tool, its breaker and its row of spending, as far as the role may see them."""
    spending, coordination, breakers, halts = await asyncio.gather(
        visit.get_or("/v1/spend", {"rows": []}, {"by": "tool", "since": SPAN, "limit": ROWS}),
        visit.get_or("/v1/coordination", {"windows": []}),
        visit.get("/v1/breakers"),
        visit.get("/v1/halts"),
    )
    rows = rows_by_name("tool", coordination["windows"], breakers["breakers"], spending["rows"])
    halted = {halt["called"] or halt["name"] for halt in halts["halts"] if halt["scope"] == "tool"}
    return {
        "rows": {row["name"]: row for row in rows},
        "halted": halted,
        "seen": "refused" not in spending,
        "halts": halts["halts"],
        "breakers": breakers["breakers"],
    }


async def _read_state(visit: Visit) -> Json:
    """State of one tool: its halts and its breaker, and what a person may do about them."""
    tool = _tool_name(visit)
    health = await _read_health(visit)

    def is_ours(row: Json) -> bool:
        return bool(row["scope"] == "tool" and (row["called"] or row["name"]) == tool)

    return {
        "here": _page_path(visit),
        "halts": [halt for halt in health["halts"] if is_ours(halt)],
        "breakers": [breaker for breaker in health["breakers"] if is_ours(breaker) and breaker["phase"] != "closed"],
        "row": health["rows"].get(tool),
        "may": visit.claim.role in OPERATORS.names,
        "span": SPAN,
    }


async def _read_calls(visit: Visit) -> Json:
    """Its calls in the newest tasks that called it, the newest first, each with its task, and what may be missing."""
    tool = _tool_name(visit)
    page = await visit.get_or("/v1/tasks", {"tasks": [], "note": ""}, {"tool": tool, "limit": RECENT_TASKS})
    tasks = page["tasks"]
    stories = await asyncio.gather(
        *(visit.get_or(f"/v1/tasks/{task['task_id']}/why", {"story": {"steps": []}}) for task in tasks)
    )
    calls = [
        call | {"task_id": task["task_id"], "objective": task["objective"]}
        for task, account in zip(tasks, stories, strict=True)
        for step in account["story"]["steps"]
        for call in step["calls"]
        if call["kind"] != "model"
        and (call["name"] == tool or (tool == "search_documents" and call["kind"] == "search"))
    ]
    return {
        "calls": sorted(calls, key=lambda call: -call["asked_unix_ms"])[:RECENT_CALLS],
        "calls_note": page["note"],
        "calls_refused": page.get("refused"),
    }


def _tool_name(visit: Visit) -> str:
    name: str = visit.request.path_params["tool"]
    return name


def _page_path(visit: Visit) -> str:
    return f"/tools/{quote(_tool_name(visit), safe='')}"


def _api_path(visit: Visit) -> str:
    return f"/v1/tools/{_tool_name(visit)}"
