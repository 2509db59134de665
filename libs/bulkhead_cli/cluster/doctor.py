"""`bulkhead doctor --kubernetes`: looks at a mesh in a cluster; each finding says what to do. Nothing is changed.

In: a context, a namespace, an overlay to compare with. Out: findings.
"""

from dataclasses import dataclass
from pathlib import Path

from bulkhead_cli.cluster.collect import Unseen, collect
from bulkhead_cli.cluster.expected import expected
from bulkhead_cli.cluster.fields import NAME
from bulkhead_cli.cluster.judge import judge
from bulkhead_cli.cluster.kubectl import REQUEST_TIMEOUT_S, Kubectl
from bulkhead_cli.operate.finding import Finding
from bulkhead_cli.output import Exit, Stop


@dataclass(frozen=True, slots=True)
class Place:
    """The mesh that is meant. overlay: folder whose images.sha256 says what was promoted."""

    context: str = ""
    namespace: str = "bulkhead"
    kubeconfig: Path | None = None
    overlay: Path | None = None


async def examine(place: Place, timeout_s: float = REQUEST_TIMEOUT_S) -> list[Finding]:
    """All findings. Raises Stop for what cannot be meant."""
    if not NAME.fullmatch(place.namespace) or len(place.namespace) > 63:
        raise Stop(Exit.USAGE, f"--namespace {place.namespace[:80]!r} is no name", "write a-z, 0-9 and dashes")
    if place.kubeconfig and not place.kubeconfig.is_file():
        raise Stop(Exit.USAGE, f"there is no kubeconfig {place.kubeconfig}", "correct --kubeconfig, or set KUBECONFIG")
    promoted = _promoted(place.overlay) if place.overlay else {}
    kubectl = Kubectl(place.context, place.kubeconfig, timeout_s)
    try:
        seen = await collect(kubectl, place.namespace, promoted)
    except Unseen as unseen:
        return [unseen.finding]
    return judge(seen, expected())


def _promoted(overlay: Path) -> dict[str, str]:
    from bulkhead_infra.kubernetes import images

    path = overlay / images.LIST_FILE
    try:
        return images.references(path.read_text())
    except OSError as error:
        todo = "name the folder of an overlay that a release was promoted to: infra/kubernetes/overlays/production"
        raise Stop(Exit.USAGE, f"{path} cannot be read: {error.strerror}", todo) from error
    except images.ImageError as error:
        raise Stop(Exit.USAGE, f"{path}: {error}") from error
