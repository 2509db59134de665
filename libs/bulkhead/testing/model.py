"""The offline model of a mesh under test: rules instead of an LLM, and misbehaviour on request.

In: names of faults (see infra/bulkhead_infra/offline_model/README.md). Out: the next requests that fit get them. The
end of the test removes all.
"""

import re
from collections.abc import Mapping
from typing import Any

import httpx

from bulkhead.testing.assertions import refute

TIMEOUT_S = 10.0


class ModelUnderTest:
    """See the module. url: without `/v1`."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=TIMEOUT_S, trust_env=False)
        self._used = False

    def misbehave(self, fault: str, *, times: int = 1, match: str = "", pattern: str = "", **more: Any) -> None:
        """Let the next requests fail: those whose text holds `match`, or fits the regular expression `pattern`.

        more: delay_ms, retry_after_s, after_chunks, abrupt. Raises ValueError with the faults that there are.
        """
        self._used = True
        fitting = pattern or re.escape(match)
        answer = self._http.post("/admin/faults", json={"fault": fault, "times": times, "match": fitting, **more})
        if answer.status_code != httpx.codes.OK:
            raise ValueError(answer.json()["error"]["message"])

    def script(self, *faults: str, match: str = "") -> None:
        """One after the other: the first fitting request meets the first, the second the second; then it is well."""
        for fault in faults:
            self.misbehave(fault, match=match)

    @property
    def armed(self) -> list[Mapping[str, Any]]:
        """fault, left, taken, match of each."""
        faults: list[Mapping[str, Any]] = self._http.get("/admin/faults").json()["armed"]
        return faults

    def was_met(self) -> bool:
        """Every fault has happened as often as it was asked for: else the test has not tested it."""
        __tracebackhide__ = True
        if unmet := [fault for fault in self.armed if fault["left"]]:
            refute(
                "offline_model.was_met()",
                f"{len(unmet)} faults have not all happened",
                (
                    f"{fault['fault']}: {fault['taken']} times, {fault['left']} left, match {fault['match']}"
                    for fault in unmet
                ),
                "no request fitted: see offline_model.requests() for those that came",
            )
        return True

    def requests(self) -> list[Mapping[str, Any]]:
        """The requests to the model, newest last: role, model, fault, status, usage."""
        rows: list[Mapping[str, Any]] = self._http.get("/admin/requests").json()["requests"]
        return rows

    def calm(self) -> None:
        """Forget all faults."""
        self._http.delete("/admin/faults")
        self._used = False

    def close(self) -> None:
        """Calm it, and end the connection."""
        if self._used:
            self.calm()
        self._http.close()
