"""The certificates of one control plane: two CAs of its own, made in the state directory and kept there.

The API server and its clients trust one CA, etcd the other: so a client of the API server can never read etcd past RBAC.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_VALID = timedelta(days=3650)
_RENEW = timedelta(days=30)
#: The first address of the service CIDR: what the `kubernetes` Service gets.
SERVICE_CIDR = "10.96.0.0/16"
_SERVICE_ADDRESS = "10.96.0.1"


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, as PEM files."""

    cert: Path
    key: Path


class Authority:
    """A CA in a directory. Certificates are made once and made again when they are about to end."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.pair = Pair(directory / "ca.crt", directory / "ca.key")
        if not _fresh(self.pair):
            self._make(name)
        self._cert = x509.load_pem_x509_certificate(self.pair.cert.read_bytes())
        self._key = serialization.load_pem_private_key(self.pair.key.read_bytes(), None)

    def server(self, name: str) -> Pair:
        """A certificate for a server on loopback."""
        names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        addresses = [IPv4Address("127.0.0.1"), IPv4Address(_SERVICE_ADDRESS)]
        alternatives = x509.SubjectAlternativeName(
            [*(x509.DNSName(n) for n in names), *(x509.IPAddress(a) for a in addresses)]
        )
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        return self._issue(name, _subject(name), [alternatives, usage])

    def client(self, user: str, group: str | None = None) -> Pair:
        """A certificate that says who somebody is: Kubernetes reads the user from CN and the group from O."""
        file = user.replace(":", "-")
        return self._issue(file, _subject(user, group), [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])])

    def context(self, client: Pair) -> ssl.SSLContext:
        """TLS settings that trust this CA alone and identify as `client`."""
        context = ssl.create_default_context(cafile=str(self.pair.cert))
        context.load_cert_chain(client.cert, client.key)
        return context

    def _make(self, name: str) -> None:
        for old in [*self._directory.glob("*.crt"), *self._directory.glob("*.key")]:
            old.unlink()  # whatever the old CA signed is worth nothing now
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_subject(name), _subject(name), key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        _write(self.pair, builder.sign(key, hashes.SHA256()), key)

    def _issue(self, file: str, subject: x509.Name, extensions: list[x509.ExtensionType]) -> Pair:
        pair = Pair(self._directory / f"{file}.crt", self._directory / f"{file}.key")
        if _fresh(pair):
            return pair
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(subject, self._cert.subject, key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        assert isinstance(self._key, ec.EllipticCurvePrivateKey)
        _write(pair, builder.sign(self._key, hashes.SHA256()), key)
        return pair


def signing_key(path: Path) -> Path:
    """The key that service account tokens are signed with; made once."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write_private(path, _pem(ec.generate_private_key(ec.SECP256R1())))
    return path


def _subject(user: str, group: str | None = None) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, user)]
    if group:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
    return x509.Name(attributes)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))  # a clock that was set back a little does no harm
        .not_valid_after(now + _VALID)
    )


def _fresh(pair: Pair) -> bool:
    if not (pair.cert.exists() and pair.key.exists()):
        return False
    cert = x509.load_pem_x509_certificate(pair.cert.read_bytes())
    return cert.not_valid_after_utc - datetime.now(UTC) > _RENEW


def _write(pair: Pair, cert: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    _write_private(pair.key, _pem(key))
    pair.cert.write_bytes(cert.public_bytes(serialization.Encoding.PEM))


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    # The traditional form: kube-apiserver reads no public key out of PKCS#8.
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def _write_private(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)
