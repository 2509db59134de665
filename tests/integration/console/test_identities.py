"""The room of keys and identities: who may act in the tenant, to those who oversee it, and never a key."""

import hashlib
from pathlib import Path

from tests.integration.console.browsing import browsing
from tests.replay.stage import APPROVER, AUDITOR, KEYS, TENANT, stage


async def test_overseers_see_who_may_act_in_their_tenant_alone(tmp_path: Path) -> None:
    async with stage(tmp_path) as on, browsing(on, AUDITOR) as aud, browsing(on, APPROVER) as bob:
        page = (await aud.get("/identities")).text
        for key, (tenant, person) in KEYS.items():
            digest = hashlib.sha256(key.encode()).hexdigest()
            assert key not in page and digest not in page
            assert (f">{person}<" in page) == (digest[:12] in page) == (tenant == TENANT), person
        assert "pub_demo" in page and "submit tasks over the bus" in page
        assert "&#34;" not in page and "dismiss dead letters" in page
        seen = (await bob.get("/identities")).text
        assert "may not see keys and identities" in seen and ">olga<" not in seen and "dismiss dead letters" in seen
        found = (await aud.get("/search", params={"q": "olga"})).text
        assert "/identities#keys" in found
        assert "/identities#keys" not in (await bob.get("/search", params={"q": "olga"})).text
        assert "/tools/calculate" in (await bob.get("/search", params={"q": "calculate"})).text
