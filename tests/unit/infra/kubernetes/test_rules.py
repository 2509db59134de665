"""The examples break no rule."""

import pytest

from tests.unit.infra.kubernetes import rules
from tests.unit.infra.kubernetes.rendered import installation


@pytest.mark.parametrize("autoscaling", ["keda", "hpa"])
@pytest.mark.parametrize("name", ["staging", "production"])
def test_an_installation_breaks_no_rule(name: str, autoscaling: str) -> None:
    assert rules.breaches(installation(name, autoscaling=autoscaling)) == []


def test_dev_breaks_no_rule_but_that_its_images_have_no_digest() -> None:
    assert {line.partition(":")[0] for line in rules.breaches(installation("dev"))} == {"by-digest"}
