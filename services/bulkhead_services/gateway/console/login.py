"""Login and logout: an API key, or a link that one made, becomes a session, whose sealed token the browser keeps in a
cookie it cannot read.

In: a form. Out: the cookie, or the form again with the reason. The key is in no URL, no page and no browser's store. A
link's token stands behind the `#` of the login's address, which browsers send to nobody; the page's script puts it into
the form. A stranger's link would sign its victim in as the stranger: a page asks first, unless that person is signed in
already.
"""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bulkhead.telemetry.log import Log
from bulkhead_services.gateway.console import pages
from bulkhead_services.gateway.console.api import ApiRefused
from bulkhead_services.gateway.console.visits import (
    COOKIE,
    SECURE_COOKIE,
    is_secure,
    read_form,
    redirect_to,
    require_own_form,
    safe_path,
    token_of,
)
from bulkhead_services.gateway.http.auth import GatewayAuthenticator
from bulkhead_services.gateway.problems import Problem
from bulkhead_services.gateway.sessions import LINK_PREFIX

log = Log("gateway.console")


class ConsoleLoginRoutes:
    """The routes that need no session. lasts_s: of a session."""

    def __init__(self, auth: GatewayAuthenticator, lasts_s: int) -> None:
        self._auth, self._lasts_s = auth, lasts_s

    def routes(self) -> list[Route]:
        """Routes of login, logout, theme and static files."""
        return [
            Route("/login", self.show_form, methods=["GET"]),
            Route("/login", self.sign_in, methods=["POST"]),
            Route("/logout", self.sign_out, methods=["POST"]),
            Route("/theme", self.set_theme, methods=["POST"]),
            Route("/static/{version}/{name}", pages.serve_file, methods=["GET"]),
        ]

    async def show_form(self, request: Request) -> Response:
        """GET /login"""
        return pages.render_page(
            request, "login.html", next=safe_path(request.query_params.get("next", "/")), problem="", hint=""
        )

    async def sign_in(self, request: Request) -> Response:
        """POST /login"""
        try:
            require_own_form(request)
            fields = await read_form(request)
        except ApiRefused as error:
            return _render_form_again(request, error.status, "/", error.detail, error.hint)
        path, key = safe_path(fields.get("next", "/")), fields.get("api_key", "")
        try:
            if key.startswith(LINK_PREFIX):
                if not fields.get("confirmed") and (page := await self._render_question(request, path, key)):
                    return page
                token = await self._auth.use_link(key)
            else:
                token = await self._auth.open_session(key)
            claim = await self._auth.authenticate_caller({"authorization": f"Bearer {token}"})
        except Problem as problem:
            return _render_form_again(request, problem.body.status, path, problem.body.detail, problem.body.hint)
        log.info("signed_in", tenant=claim.tenant, person=claim.person, role=claim.role)
        answer, secure = redirect_to(request, path), is_secure(request)
        name = SECURE_COOKIE if secure else COOKIE
        answer.set_cookie(name, token, max_age=self._lasts_s, secure=secure, httponly=True, samesite="lax", path="/")
        return answer

    async def _render_question(self, request: Request, path: str, link: str) -> Response | None:
        """The page that says as whom a link signs in; None where that is who is signed in. Raises Problem (401)."""
        owner, _ = self._auth.link_owner(link)
        try:
            current = await self._auth.authenticate_caller({"authorization": f"Bearer {token_of(request)}"})
        except Problem:
            current = None
        if current == owner:
            return None
        return pages.render_page(request, "login_link.html", next=path, link=link, owner=owner, current=current)

    async def sign_out(self, request: Request) -> Response:
        """POST /logout"""
        require_own_form(request)
        answer = redirect_to(request, "/login")
        try:
            await self._auth.end_session(token_of(request))
        except Problem as problem:
            answer = _render_form_again(request, problem.body.status, "/", problem.body.detail, problem.body.hint)
        for name in (COOKIE, SECURE_COOKIE):
            answer.delete_cookie(name, path="/", secure=name == SECURE_COOKIE, httponly=True, samesite="lax")
        # Texts of pages stay in no cache, and no other tab goes on with it.
        answer.headers["Clear-Site-Data"] = '"cache", "storage"'
        return answer

    async def set_theme(self, request: Request) -> Response:
        """POST /theme"""
        require_own_form(request)
        fields = await read_form(request)
        chosen = fields.get("theme", "auto")
        answer = redirect_to(request, safe_path(fields.get("next", "/")))
        if chosen in pages.THEMES:
            answer.set_cookie(
                pages.THEME_COOKIE, chosen, max_age=365 * 24 * 3600, httponly=True, samesite="lax", path="/"
            )
        return answer


def _render_form_again(request: Request, status: int, path: str, problem: str, hint: str) -> Response:
    return pages.render_page(request, "login.html", status, next=path, problem=problem, hint=hint)
