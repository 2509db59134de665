"""Gates of the tenants file: a mistake in it opens none."""

import os
from pathlib import Path

import pytest
import yaml

from bulkhead.quotas.tenant_quotas import TenantQuotas

GATE = {"sets": {"answers": None}, "keys": ["a" * 64]}


def write(file: Path, document: object) -> None:
    stamp = file.stat().st_mtime_ns + 1_000_000 if file.exists() else None
    file.write_text(yaml.safe_dump(document))
    if stamp is not None:
        os.utime(file, ns=(stamp, stamp))


@pytest.mark.parametrize("document", [{}, {"tenants": {"demo": {"gate": {"production": GATE}}}}, {"tenant": {}}])
def test_a_file_with_a_misspelt_key_is_not_read(tmp_path, document):
    write(tmp_path / "tenants.yaml", document)
    with pytest.raises(ValueError):
        TenantQuotas(tmp_path / "tenants.yaml")


@pytest.mark.parametrize(
    ("document", "labels"),
    [
        ({"tenants": {"demo": {"gate": {"production": GATE}}}}, ["production"]),
        ({"tenants": {"demo": {}}}, ["production"]),
        ({"tenants": {}}, ["production"]),
        ({}, ["production"]),
        ({"tenants": {"demo": {"gates": {"staging": GATE}}}}, ["production", "staging"]),
        ({"tenants": {"demo": {"gates": {}}}}, []),
    ],
)
def test_only_a_row_that_says_so_opens_a_gate(tmp_path, document, labels):
    file = tmp_path / "tenants.yaml"
    write(file, {"tenants": {"demo": {"gates": {"production": GATE}}}})
    quotas = TenantQuotas(file)
    write(file, document)
    quotas.reload_if_changed()
    assert sorted(quotas.gates_of("demo")) == labels
