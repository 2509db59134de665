"""The gateway's HTTP API as the committed OpenAPI document. In: the gateway's own description. Out: one file."""

import json

from bulkhead_services.gateway.http.openapi import openapi


def files() -> dict[str, str]:
    return {"contracts/openapi.json": json.dumps(openapi(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"}
