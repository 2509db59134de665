"""The room of quality: how good answers are, by name and over time.

In: visits. Out: a page with a chart that its template draws.
"""

from starlette.responses import Response
from starlette.routing import Route

from bulkhead_services.gateway.console.spend.room import SPANS, label_times
from bulkhead_services.gateway.console.visits import ConsoleRoutes, Visit

KINDS = ("feature", "prompt", "model")
SERIES = {"good_share": "good", "rated": "good by people", "judged": "good by judges"}
"""Shares of the API, and what the chart calls them."""


class ConsoleQualityRoutes(ConsoleRoutes):
    """The route /quality."""

    def routes(self) -> list[Route]:
        """Route of the page of quality."""
        return [self.factory.get_route("/quality", self.show_quality, shared=True)]

    async def show_quality(self, visit: Visit) -> Response:
        """GET /quality"""
        by, since = visit.query_value("by") or "feature", visit.query_value("since") or "7d"
        series = visit.query_value("show") if visit.query_value("show") in SERIES else "good_share"
        query: dict[str, str | int] = {"by": by, "since": since, "slices": SPANS.get(since, 48) // 2}
        query["feature"] = visit.query_value("feature")
        page = await visit.get_or("/v1/quality", {"rows": []}, query)
        since_unix_ms, until_unix_ms = page.get("since_unix_ms", 0), page.get("until_unix_ms", 0)
        return visit.render_page(
            "quality/quality.html",
            quality=page,
            refused=page.get("refused"),
            ticks=label_times(since_unix_ms, until_unix_ms),
            by=by,
            since=since,
            series=series,
            all_series=SERIES,
            kinds=KINDS,
            spans=tuple(SPANS),
            feature=query["feature"],
        )
