"""Files of others that lie in the tree are those that were looked at: name, version, licence, digest."""

import hashlib
import tomllib

import pytest

from tests.paths import ROOT

LISTS = ("services/bulkhead_services/gateway/console/static/vendor", "tests/e2e/console/vendor")


@pytest.mark.parametrize("folder", LISTS)
def test_every_vendored_file_is_the_one_that_was_looked_at(folder):
    place = ROOT / folder
    rows = tomllib.loads((place / "vendored.toml").read_text())
    assert {path.name for path in place.iterdir()} - {"vendored.toml"} == {
        name for row in rows.values() for name in (row["file"], row["licence_file"])
    }
    for name, row in sorted(rows.items()):
        data = (place / row["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == row["sha256"], f"{name} is not {row['version']} as it was released"
        assert row["licence"] and row["package"] and (place / row["licence_file"]).read_text().strip()
