"""Checks of `bulkhead doctor` on the providers of models: settings, addresses, certificates, keys, models.

In: the environment of this shell, from which `bulkhead up` would start. Out: findings. No model is called: each key at
each address is asked for the list of its models, which costs nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import TYPE_CHECKING

import httpx

from bulkhead_cli.operate.finding import DoctorFinding

if TYPE_CHECKING:
    from bulkhead_services.model_gateway.routing.options import EndpointTarget, ProviderSettings
    from bulkhead_services.model_gateway.settings import Settings

SERVICE = "model_gateway"
ASK_TIMEOUT_S = 5.0
OK, REDIRECTS, REFUSED, BUSY = 200, range(300, 400), (401, 403), 429
SERVER_ERROR = 500


async def check_providers(environ: Mapping[str, str]) -> AsyncIterator[DoctorFinding]:
    """Findings on every provider that a route uses."""
    from bulkhead_infra.local.environment import names_provider, setting_errors, settings_from
    from bulkhead_services.model_gateway.settings import Settings

    if not names_provider(environ):
        yield DoctorFinding("providers", "ok", "none is named in this shell: `bulkhead up` takes the offline model")
        return
    if wrong := setting_errors(SERVICE, environ):
        for line in wrong:
            yield DoctorFinding(
                "providers", "problem", line, "correct it before the next start, which would be refused"
            )
        return
    settings = settings_from(SERVICE, environ)
    assert isinstance(settings, Settings)
    providers = settings.all_providers()
    used: dict[str, set[str]] = {}
    for route in settings.all_routes().values():
        for model in route.models():
            used.setdefault(model.provider, set()).add(model.model)
    tried = (
        _check_target(name, providers[name], target, settings, models)
        for name, models in sorted(used.items())
        for target in providers[name].targets()
    )
    for finding in await asyncio.gather(*tried):
        yield finding


async def _check_target(
    name: str, provider: "ProviderSettings", target: "EndpointTarget", settings: "Settings", models: Iterable[str]
) -> DoctorFinding:
    from bulkhead_services.model_gateway.effects import Network, build_headers, make_transport

    subject, where = f"provider {name}", target.base_url
    network = Network(ASK_TIMEOUT_S, ASK_TIMEOUT_S, settings.provider_proxy, settings.provider_ca_file)
    try:
        async with httpx.AsyncClient(
            base_url=where.rstrip("/") + "/",
            headers=build_headers(provider.api, target),
            transport=make_transport(1, network),
        ) as http:
            answer = await http.get("models", timeout=ASK_TIMEOUT_S)
    except httpx.ProxyError as error:
        return DoctorFinding(subject, "problem", f"the proxy refused: {error}", "correct BULKHEAD_PROVIDER_PROXY")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return DoctorFinding(
            subject, "problem", f"{where} cannot be reached: {error or type(error).__name__}", _connection_advice(error)
        )
    # Azure lists what could be deployed, and calls name deployments.
    return _judge_answer(subject, where, answer, () if provider.api == "azure-openai" else models)


def _connection_advice(error: Exception) -> str:
    if "CERTIFICATE" in str(error):
        return "name the CA that signed its certificate in BULKHEAD_PROVIDER_CA_FILE"
    return "is it up, is its base URL right, and may this machine reach it (BULKHEAD_PROVIDER_PROXY)?"


def _judge_answer(what: str, where: str, answer: httpx.Response, models: Iterable[str]) -> DoctorFinding:
    status = answer.status_code
    if status in REFUSED:
        return DoctorFinding(
            what, "problem", f"{where} refused the key (HTTP {status})", "correct its key, or its rights"
        )
    if status in REDIRECTS:
        to = answer.headers.get("location", "another address")[:200]
        return DoctorFinding(
            what, "problem", f"{where} has moved to {to}", "correct its base URL: calls follow no redirect"
        )
    if status >= SERVER_ERROR or status == BUSY:
        return DoctorFinding(
            what, "warning", f"{where} answers HTTP {status}", "calls will be tried again; look at its status"
        )
    if status != OK:
        return DoctorFinding(what, "ok", f"{where} answers; it has no list of models, so the models are not checked")
    missing = sorted(set(models) - _model_ids(answer)) if _model_ids(answer) else []
    if missing:
        names = ", ".join(missing)
        return DoctorFinding(what, "warning", f"{where} does not list {names}", "check the name; calls of it may fail")
    return DoctorFinding(what, "ok", f"{where} answers, its key is taken")


def _model_ids(answer: httpx.Response) -> set[str]:
    """Names of the models in a list; empty where it is none, or not all of it."""
    try:
        body = answer.json()
        rows = body.get("data") or body.get("models") or []
        if body.get("has_more") or body.get("nextPageToken"):
            return set()
        return {str(row.get("id") or row.get("name")).removeprefix("models/") for row in rows}
    except (ValueError, AttributeError):
        return set()
