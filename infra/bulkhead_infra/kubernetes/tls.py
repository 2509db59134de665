"""cert-manager makes the brokers' certificate in the place of our own CA: the same Secret, with the same keys in it.

In: host names of the brokers. Out: issuers and certificates. cert-manager renews; the brokers read it when they start.
"""

from collections.abc import Sequence

from bulkhead_infra.kubernetes import objects
from bulkhead_infra.kubernetes.objects import Object

API = "cert-manager.io/v1"
CA = "bulkhead-ca"
CA_DURATION, DURATION, RENEW_BEFORE = "87600h", "8760h", "2160h"
"""Ten years, one year, and three months: time to restart the brokers in."""
KEY = {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"}


def manifests(hosts: Sequence[str]) -> list[Object]:
    """A CA of this mesh alone, and the certificate that it signs. Brokers are also clients of each other."""
    return [
        _issuer("bulkhead-self-signed", {"selfSigned": {}}),
        _certificate(
            CA,
            isCA=True,
            commonName="Bulkhead mesh CA",
            secretName=CA,
            duration=CA_DURATION,
            privateKey=KEY | {"rotationPolicy": "Never"},
            issuerRef={"name": "bulkhead-self-signed", "kind": "Issuer", "group": "cert-manager.io"},
        ),
        _issuer(CA, {"ca": {"secretName": CA}}),
        _certificate(
            objects.TLS_SECRET,
            secretName=objects.TLS_SECRET,
            duration=DURATION,
            renewBefore=RENEW_BEFORE,
            privateKey=KEY,
            dnsNames=list(hosts),
            usages=["digital signature", "server auth", "client auth"],
            issuerRef={"name": CA, "kind": "Issuer", "group": "cert-manager.io"},
        ),
    ]


def _issuer(name: str, spec: Object) -> Object:
    return {
        "apiVersion": API,
        "kind": "Issuer",
        "metadata": objects.metadata(name, objects.INFRASTRUCTURE),
        "spec": spec,
    }


def _certificate(name: str, **spec: object) -> Object:
    found = {"apiVersion": API, "kind": "Certificate", "metadata": objects.metadata(name, objects.INFRASTRUCTURE)}
    return found | {"spec": spec}
