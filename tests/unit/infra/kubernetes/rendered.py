"""The chart as Helm renders it: by Helm's own engine, which the package helm-python-sdk brings as a library."""

import copy
import functools
from collections.abc import Mapping
from typing import Any

import yaml

from bulkhead_infra.docker.image_contents import IMAGES
from bulkhead_infra.kubernetes.chart import CHART, kube_name
from tests.needs import need
from tests.paths import ROOT

Object = dict[str, Any]
EXAMPLES = ROOT / "infra/chart/examples"
INSTALLATIONS = ("dev", "staging", "production")
NAMESPACE = "bulkhead"
DIGESTS = {kube_name(name): f"sha256:{number:064x}" for number, name in enumerate(IMAGES, 1)}


def example(name: str) -> Object:
    """Values of an example; of staging and production with images, as promotion gives them."""
    values: Object = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())
    return (
        values if name == "dev" else values | {"image": {"registry": "registry.example.org/mesh", "digests": DIGESTS}}
    )


def render_chart(values: Mapping[str, Any], *, namespace: str = NAMESPACE) -> list[Object]:
    """All objects. Raises HelmError for values that the chart refuses; skips where Helm's engine is not installed."""
    texts = render_texts(values, namespace=namespace)
    documents = [parse_objects(text) for path, text in sorted(texts.items()) if path.endswith(".yaml")]
    return [document for of_file in documents for document in of_file]


def render_texts(values: Mapping[str, Any], *, namespace: str = NAMESPACE) -> dict[str, str]:
    need("helm")
    import helm_python

    with helm_python.Chart.load(ROOT / CHART) as loaded:
        loaded.validate_schema(dict(values))
        texts: dict[str, str] = loaded.render(dict(values), name="mesh", namespace=namespace)
    return texts


def parse_objects(text: str) -> list[Object]:
    """Objects of a text. By the loader in C, which takes a tenth of the time."""
    return [document for document in yaml.load_all(text, yaml.CSafeLoader) if document]


@functools.cache
def _objects(name: str, autoscaling: str) -> list[Object]:
    values = example(name)
    return render_chart(values if autoscaling == "" else values | {"autoscaling": {"by": autoscaling}})


def installation(name: str, *, autoscaling: str = "") -> list[Object]:
    """Fresh objects of an example, which a test may change. autoscaling: another than the example's."""
    return copy.deepcopy(_objects(name, autoscaling))


def named(objects: list[Object], kind: str, name: str) -> Object:
    return next(each for each in objects if each["kind"] == kind and each["metadata"]["name"].startswith(name))
