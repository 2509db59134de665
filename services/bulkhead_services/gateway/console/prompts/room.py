"""The rooms of prompts and labels: what models are told, in which version, who changed it and why.

In: visits; forms by which a person publishes a version, moves a label, starts or ends a canary, or goes back. Out:
pages. A version never changes, and no task uses it before a label is moved to it.
"""

import asyncio
import re
from typing import Any, NamedTuple
from urllib.parse import quote

from starlette.responses import Response
from starlette.routing import Route

from bulkhead.gateway_api.prompts import EDITORS
from bulkhead.gateway_api.query import OVERSEERS
from bulkhead_contracts import bounds
from bulkhead_contracts.prompt import PRODUCTION
from bulkhead_services.gateway.console.api import ApiRefused, Json
from bulkhead_services.gateway.console.prompts import form as forms
from bulkhead_services.gateway.console.prompts.difference import compare_contents
from bulkhead_services.gateway.console.prompts.evaluations import read_gate, request_evaluations
from bulkhead_services.gateway.console.prompts.trial import begin_trial, show_trial
from bulkhead_services.gateway.console.visits import KEY_FIELD, ConsoleRoutes, Visit, redirect_to

MAX_FORM_BYTES = 512 * 1024
"""A text of the longest kind as a browser sends it: up to nine bytes for a character."""
SHIPPED = "shipped"
MAX_FINDINGS = 3
VERSION = re.compile(r"r([1-9][0-9]{0,8})")


class ChosenVersion(NamedTuple):
    """A version that a page shows. mark: `r3` of the tenant's own, `2` or `shipped`. row: None of a shipped one."""

    mark: str
    name: str
    content: Json
    row: Json | None


class ConsolePromptRoutes(ConsoleRoutes):
    """The routes under /prompts."""

    def routes(self) -> list[Route]:
        """Routes of the pages of prompts and labels."""
        get, post = self.factory.get_route, self.factory.post_route
        # No prompt has a hyphen in its name.
        return [
            get("/prompts", self.list_prompts),
            get("/prompts/by-label/{label}", self.show_label),
            post("/prompts/by-label/{label}/{act}", self.submit_move),
            get("/prompts/{prompt}", self.show_prompt),
            get("/prompts/{prompt}/edit", self.show_editor),
            post("/prompts/{prompt}/edit", self.publish_version),
            post("/prompts/{prompt}/check", self.check_content),
            get("/prompts/{prompt}/promote", self.show_promotion),
            post("/prompts/{prompt}/promote", self.promote_version),
            post("/prompts/{prompt}/evaluate", self.evaluate_version),
            get("/prompts/{prompt}/try", self.show_trial),
            post("/prompts/{prompt}/try", self.begin_trial),
        ]

    async def list_prompts(self, visit: Visit) -> Response:
        """GET /prompts"""
        prompts, releases = await asyncio.gather(visit.get("/v1/prompts"), visit.get("/v1/releases"))
        return visit.render_page(
            "prompts/list.html",
            prompts=prompts["prompts"],
            releases=releases["releases"],
            drifts=releases["drifts"],
            may=_may_change(visit),
        )

    async def show_prompt(self, visit: Visit) -> Response:
        """GET /prompts/{prompt}: its versions, the text of one, or the difference of two"""
        document, releases, uses_more = await asyncio.gather(
            _read_prompt(visit), visit.get("/v1/releases"), _read_usage_findings(visit)
        )
        chosen = await _choose_version(visit, document, visit.query_value("version"))
        against = difference = None
        if visit.query_value("against"):
            against = await _choose_version(visit, document, visit.query_value("against"))
            difference = await asyncio.to_thread(compare_contents, against.content, chosen.content)
        name = document["prompt"]["prompt"]
        gated = await read_gate(visit, name, chosen.row["number"]) if chosen.row else {"gate": None}
        return visit.render_page(
            "prompts/prompt.html",
            **gated,
            document=document,
            prompt=document["prompt"],
            chosen=chosen,
            against=against,
            difference=difference,
            uses=_label_uses(name, releases["releases"]),
            uses_more=uses_more,
            here=_page_path(visit),
            may=_may_change(visit),
        )

    async def show_editor(self, visit: Visit) -> Response:
        """GET /prompts/{prompt}/edit"""
        document = await _read_prompt(visit)
        chosen = await _choose_version(visit, document, visit.query_value("version"))
        form = {"owner": document["prompt"]["owner"], "note": "", "based_on": chosen.name}
        form["review_by"] = chosen.row.get("review_by", "") if chosen.row else ""
        return _render_editor(visit, document["prompt"], chosen.content, form)

    async def publish_version(self, visit: Visit) -> Response:
        """POST /prompts/{prompt}/edit"""
        form = await visit.read_form(MAX_FORM_BYTES)
        content = forms.content_of(form)
        fields = {name: form.get(name, "") for name in ("note", "owner", "based_on", "review_by")}
        try:
            version = await visit.post(_api_path(visit), {"content": content, **fields}, form.get(KEY_FIELD, ""))
        except ApiRefused as error:
            if error.status == 401:
                raise
            document = await _read_prompt(visit)
            return _render_editor(visit, document["prompt"], content, fields, error)
        return redirect_to(visit.request, f"{_page_path(visit)}?version=r{version['number']}")

    async def check_content(self, visit: Visit) -> Response:
        """POST /prompts/{prompt}/check: what an open editor asks while a person types"""
        content = forms.content_of(await visit.read_form(MAX_FORM_BYTES))
        return visit.render_page("prompts/check_page.html", **_check_values(content))

    async def show_promotion(self, visit: Visit) -> Response:
        """GET /prompts/{prompt}/promote"""
        form = {"label": visit.query_value("label") or PRODUCTION, "version": visit.query_value("version")}
        return await _render_promotion(visit, form)

    async def promote_version(self, visit: Visit) -> Response:
        """POST /prompts/{prompt}/promote"""
        form = await visit.read_form()
        change = await _read_change(visit, form)
        try:
            await _move_label(visit, form, form.get("label", ""), {"changes": [change], **forms.share_of(form)})
        except ApiRefused as error:
            if error.status == 401:
                raise
            return await _render_promotion(visit, form, error)
        return redirect_to(visit.request, _label_path(form.get("label", "")))

    async def evaluate_version(self, visit: Visit) -> Response:
        """POST /prompts/{prompt}/evaluate: with the values of the form, or those that the label has"""
        form = await visit.read_form()
        label = form.get("label", "") or PRODUCTION
        if not any(field.startswith("value-") for field in form):
            standing = (await visit.get(f"/v1/releases/{label}"))["releases"]
            uses = _label_uses(_prompt_name(visit), standing[:1])
            form |= {f"value-{name}": value for name, value in (uses[0]["values"] if uses else {}).items()}
        try:
            return await request_evaluations(visit, form, label, [await _read_change(visit, form)])
        except ApiRefused as error:
            if error.status == 401:
                raise
            return await _render_promotion(visit, form, error)

    async def show_trial(self, visit: Visit) -> Response:
        """GET /prompts/{prompt}/try"""
        chosen = await _choose_own_version(visit)
        return await show_trial(
            visit, _page_path(visit), _prompt_name(visit), chosen.mark, may_change=_may_change(visit)
        )

    async def begin_trial(self, visit: Visit) -> Response:
        """POST /prompts/{prompt}/try"""
        chosen = await _choose_own_version(visit)
        assert chosen.row is not None
        return await begin_trial(visit, _page_path(visit), _prompt_name(visit), chosen.mark, chosen.row)

    async def show_label(self, visit: Visit) -> Response:
        """GET /prompts/by-label/{label}: what stands now, its canary, and what stood before"""
        label = visit.request.path_params["label"]
        before = visit.query_value("before")
        standing, page = await asyncio.gather(
            visit.get(f"/v1/releases/{label}"), visit.get(f"/v1/releases/{label}", before=before)
        )
        if not standing["releases"]:
            reason = f"nobody has moved a label {label}: tasks have the shipped prompts"
            raise ApiRefused(404, {"title": "There is no such label", "detail": reason, "hint": "open Prompts"})
        newest = standing["releases"][0]
        response = visit.render_page(
            "prompts/label.html",
            label=label,
            standing=newest,
            watch=next(iter(standing["canaries"]), None),
            releases=page["releases"],
            more=page["more"],
            gate=page.get("gate"),
            here=_label_path(label),
            may=_may_change(visit),
        )
        if visit.query_value("live") and not newest.get("canary"):
            response.headers["HX-Refresh"] = "true"  # The canary has ended: the acts on it go, too.
        return response

    async def submit_move(self, visit: Visit) -> Response:
        """POST /prompts/by-label/{label}/{act}: restore, promote, drop or share; evaluate the canary"""
        form = await visit.read_form()
        label, act = visit.request.path_params["label"], visit.request.path_params["act"]
        match act:
            case "evaluate":
                standing = (await visit.get(f"/v1/releases/{label}"))["releases"]
                rows = standing[0]["canary"]["prompts"] if standing and standing[0].get("canary") else []
                changes = [{name: row[name] for name in ("prompt", "number", "values") if name in row} for row in rows]
                return await request_evaluations(visit, form, label, changes)
            case "restore":
                move: Json = {"restore": _whole(form.get("number", ""))}
            case "share":
                move = {"percent": _whole(form.get("percent", ""))}
            case _:
                move = {"end_canary": act}
        await _move_label(visit, form, label, move)
        return redirect_to(visit.request, _label_path(label))


def _render_editor(
    visit: Visit, prompt: Json, content: Json, form: dict[str, str], refused: ApiRefused | None = None
) -> Response:
    return visit.render_page(
        "prompts/edit.html",
        refused.status if refused else 200,
        prompt=prompt,
        text=content["text"],
        rows=forms.rows_of(content),
        settings=forms.show_settings(content),
        form=form,
        here=_page_path(visit),
        may=_may_change(visit),
        refused_version=refused,
        max_rows=bounds.MAX_PROMPT_VARIABLES,
        **_check_values(content),
    )


def _check_values(content: Json) -> dict[str, Any]:
    return {
        "problems": forms.find_problems(content),
        "undeclared": forms.undeclared_names(content),
        "size": len(content["text"]),
        "max_chars": bounds.MAX_PROMPT_CHARS,
    }


async def _render_promotion(visit: Visit, form: dict[str, str], refused: ApiRefused | None = None) -> Response:
    document, releases = await asyncio.gather(_read_prompt(visit), visit.get("/v1/releases"))
    chosen = await _choose_version(visit, document, form.get("version", ""))
    label = form.get("label", "") or PRODUCTION
    gated = await read_gate(visit, document["prompt"]["prompt"], chosen.row["number"] if chosen.row else 0, label)
    standing = next((release for release in releases["releases"] if release["label"] == label), None)
    uses = _label_uses(document["prompt"]["prompt"], [standing] if standing else [])
    values = {variable["name"]: variable["default"] for variable in chosen.content["variables"]}
    values |= {name: value for name, value in (uses[0]["values"] if uses else {}).items() if name in values}
    return visit.render_page(
        "prompts/promote.html",
        refused.status if refused else 200,
        **gated,
        prompt=document["prompt"],
        chosen=chosen,
        label=label,
        labels=sorted({PRODUCTION, *(release["label"] for release in releases["releases"])}),
        standing=standing,
        use=uses[0] if uses else None,
        values={name: form.get(f"value-{name}", value) for name, value in values.items()},
        form={"share": "all", "percent": "10", "sticky_by": "task", "reason": ""} | form,
        here=_page_path(visit),
        may=_may_change(visit),
        refused_move=refused,
    )


async def _move_label(visit: Visit, form: dict[str, str], label: str, move: Json) -> None:
    """Move it from the release that the page showed. Raises ApiRefused."""
    body = {"after": _whole(form.get("after", "")), "reason": form.get("reason", ""), **move}
    body |= {"break_glass": True} if form.get("break_glass") else {}
    await visit.post(f"/v1/releases/{label}", body, form.get(KEY_FIELD, ""))


async def _read_change(visit: Visit, form: dict[str, str]) -> Json:
    """The change to the form's version, with the values that are not its defaults."""
    document = await _read_prompt(visit)
    chosen = await _choose_version(visit, document, form.get("version", ""))
    change: Json = {"prompt": document["prompt"]["prompt"], "number": chosen.row["number"] if chosen.row else 0}
    values = forms.values_of(form, chosen.content["variables"])
    return change | ({"values": values} if values else {})


async def _read_prompt(visit: Visit) -> Json:
    return await visit.get(_api_path(visit), before=visit.query_value("before"))


async def _read_usage_findings(visit: Visit) -> list[str]:
    """Sentences on versions of the prompt that use much more than the ones before; [] for whom may not see the use."""
    if visit.claim.role not in OVERSEERS.names:
        return []
    coordination = await visit.get_or("/v1/coordination", {"trips": []}, {})
    trips = [finding["trip"] for finding in coordination["trips"]]
    prefix = f"{_prompt_name(visit)}@"
    sentences = [
        trip["what"] for trip in trips if trip["detector"] == "prompt_usage" and trip["what"].startswith(prefix)
    ]
    return list(dict.fromkeys(sentences))[:MAX_FINDINGS]


async def _choose_version(visit: Visit, document: Json, mark: str) -> ChosenVersion:
    """The version of a mark, `r3`, `2` or `shipped`; the newest one without a mark. Raises ApiRefused."""
    prompt = document["prompt"]
    if not mark:
        mark = f"r{prompt['newest']}" if prompt["newest"] else SHIPPED
    if mark == SHIPPED:
        return ChosenVersion(mark, prompt["shipped"], {"text": document["shipped_text"], "variables": []}, None)
    match = VERSION.fullmatch(mark)
    row = next((row for row in document["versions"] if match and row["number"] == int(match[1])), None)
    if row is not None:
        return ChosenVersion(mark, f"{prompt['prompt']}@{mark}", row["content"], row)
    version = await visit.get(f"{_api_path(visit)}/versions/{mark}")
    content = {"text": version["text"], "variables": version["variables"]}
    content |= version["version"]["content"] if version["version"] else {}
    return ChosenVersion(mark, version["name"], content, version["version"])


async def _choose_own_version(visit: Visit) -> ChosenVersion:
    """The version that the address names, which is the tenant's. Raises ApiRefused."""
    chosen = await _choose_version(visit, await _read_prompt(visit), visit.query_value("version"))
    if chosen.row is None:
        reason = "a shipped text is what tasks have without a version"
        raise ApiRefused(422, {"title": "Nothing to try", "detail": reason, "hint": "choose a version of your own"})
    return chosen


def _label_uses(prompt: str, releases: list[Json]) -> list[Json]:
    """For each label, the version of a prompt that it uses, and that its canary uses; number 0 of the shipped one."""
    uses = []
    for release in releases:
        row = _row_of(prompt, release["prompts"])
        canary = release.get("canary")
        canary_row = _row_of(prompt, canary["prompts"]) if canary else None
        uses.append(
            {
                "label": release["label"],
                "number": row["number"] if row else 0,
                "values": row.get("values", {}) if row else {},
                "canary": canary | {"number": canary_row["number"]} if canary and canary_row else None,
                "release": release,
            }
        )
    return uses


def _row_of(prompt: str, rows: list[Json]) -> Json | None:
    return next((row for row in rows if row["prompt"] == prompt), None)


def _whole(text: str) -> int:
    """A number of a form; -1, which the API refuses, where it is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1


def _may_change(visit: Visit) -> bool:
    return visit.claim.role in EDITORS.names


def _prompt_name(visit: Visit) -> str:
    name: str = visit.request.path_params["prompt"]
    return name


def _page_path(visit: Visit) -> str:
    return f"/prompts/{quote(_prompt_name(visit), safe='')}"


def _label_path(label: str) -> str:
    return f"/prompts/by-label/{quote(label, safe='')}"


def _api_path(visit: Visit) -> str:
    return f"/v1/prompts/{_prompt_name(visit)}"
