"""TLS of the broker: a CA of this mesh's own and the broker's certificate.

In: a folder, the names under which the broker is reached. Out: files of mode 0600: `ca.pem`, `ca.key`, `broker.pem`,
`broker.key`. The CA is made once; the certificate again when it ends within a month or its names have changed. TLS
says that the broker is the right one and keeps others from reading; who a service is, its nkey says.
"""

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bulkhead_infra.identity.keys import KeyFileError, replace_file

CA_FILE, CA_KEY_FILE = "ca.pem", "ca.key"
BROKER_FILE, BROKER_KEY_FILE = "broker.pem", "broker.key"
CA_DAYS = 3650
BROKER_DAYS = 365
RENEW_DAYS = 30
CLOCK_SKEW = datetime.timedelta(hours=1)
USES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
"""Also of who calls: brokers of a cluster call each other, and let in whom the CA has signed."""


def ensure_certificates(folder: Path, names: Sequence[str], *, now: datetime.datetime | None = None) -> bool:
    """Make what is missing or about to end. names: host names and addresses, the first is the certificate's own.
    Returns whether the broker's certificate is new: the broker must then be restarted. Raises KeyFileError."""
    now = now or datetime.datetime.now(datetime.UTC)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (folder / CA_FILE).exists() and not (folder / CA_KEY_FILE).exists():
        _make_ca(folder, now)
    ca, ca_key = _load_certificate(folder / CA_FILE), _load_key(folder / CA_KEY_FILE)
    if ca.not_valid_after_utc <= now:
        raise KeyFileError(
            f"{folder / CA_FILE} ended on {ca.not_valid_after_utc:%Y-%m-%d}; delete it and {CA_KEY_FILE}, provision "
            "again, and restart the broker and every service: they trust the old one"
        )
    if _is_certificate_current(folder, ca, names, now):
        return False
    _make_broker(folder, ca, ca_key, names, now)
    return True


def _is_certificate_current(folder: Path, ca: x509.Certificate, names: Sequence[str], now: datetime.datetime) -> bool:
    if not (folder / BROKER_FILE).exists() or not (folder / BROKER_KEY_FILE).exists():
        return False
    certificate = _load_certificate(folder / BROKER_FILE)
    try:
        certificate.verify_directly_issued_by(ca)
    except (InvalidSignature, ValueError):
        return False
    named = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    lasts = certificate.not_valid_after_utc - now > datetime.timedelta(days=RENEW_DAYS)
    return lasts and {str(name.value) for name in named} == set(names) and set(uses) == set(USES)


def _make_ca(folder: Path, now: datetime.datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Bulkhead mesh CA")])
    usage = x509.KeyUsage(
        **dict.fromkeys(("key_cert_sign", "crl_sign"), True),
        **dict.fromkeys(("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"), False),
        **dict.fromkeys(("key_agreement", "encipher_only", "decipher_only"), False),
    )
    certificate = (
        _new_certificate_builder(name, name, key.public_key(), now, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    # The key first: a certificate whose key nobody has would be in the way.
    _write_pair(folder, CA_KEY_FILE, CA_FILE, key, certificate)


def _make_broker(
    folder: Path, ca: x509.Certificate, ca_key: ec.EllipticCurvePrivateKey, names: Sequence[str], now: datetime.datetime
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    certificate = (
        _new_certificate_builder(name, ca.subject, key.public_key(), now, BROKER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([_alternative_name(host) for host in names]), critical=False)
        .add_extension(x509.ExtendedKeyUsage(USES), critical=False)
        .add_extension(identifier, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    _write_pair(folder, BROKER_KEY_FILE, BROKER_FILE, key, certificate)


def _new_certificate_builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime.datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _alternative_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write_pair(
    folder: Path, key_file: str, file: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate
) -> None:
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    replace_file(folder / key_file, pem.decode())
    replace_file(folder / file, certificate.public_bytes(serialization.Encoding.PEM).decode())


def _load_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise KeyFileError(_broken_message(path)) from error


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise KeyFileError(_broken_message(path)) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise KeyFileError(_broken_message(path))
    return key


def _broken_message(path: Path) -> str:
    return (
        f"{path} is missing or holds nothing usable; restore it, or delete {CA_FILE} and {CA_KEY_FILE} to have a new "
        "CA made, and restart the broker and every service then"
    )
