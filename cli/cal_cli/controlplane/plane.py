"""etcd and kube-apiserver of one state directory: their arguments, their start in order, their stop in reverse order."""

from __future__ import annotations

import signal
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from cal_cli.controlplane import kubeconfig
from cal_cli.controlplane.pki import SERVICE_CIDR, Authority, signing_key
from cal_cli.controlplane.process import Process, ProcessFailed

ADMIN_GROUP = "system:masters"
_READY = 60.0
_TRIES = 3


@dataclass(frozen=True)
class Options:
    """What callers may want otherwise."""

    #: Tests give up durability for speed; a state directory that is to survive a power cut must not.
    fsync: bool = True
    #: The admission plugin refuses Pods until a controller manager made the default service account.
    service_accounts: bool = False
    #: Ports of an earlier run, taken again where free: so that a kubeconfig in somebody's shell stays true.
    ports: tuple[int, int, int] | None = None
    apiserver_args: tuple[str, ...] = ()


@dataclass
class ControlPlane:
    """A running pair of etcd and kube-apiserver."""

    state_dir: Path
    ports: tuple[int, int, int]
    etcd: Process
    apiserver: Process
    authority: Authority
    _etcd_context: ssl.SSLContext
    _admin_context: ssl.SSLContext
    kubeconfig: Path = field(init=False)

    def __post_init__(self) -> None:
        self.kubeconfig = self.user_kubeconfig("calctl-admin", ADMIN_GROUP, path=self.state_dir / "kubeconfig")

    @property
    def server(self) -> str:
        return f"https://127.0.0.1:{self.ports[2]}"

    def user_kubeconfig(self, user: str, group: str | None = None, *, path: Path | None = None) -> Path:
        """A kubeconfig with a client certificate for `user`; what the user may do is RBAC's to say."""
        path = path or self.state_dir / "users" / f"{user.replace(':', '-')}.kubeconfig"
        client = self.authority.client(user, group)
        return kubeconfig.write(path, server=self.server, authority=self.authority.pair.cert, user=user, client=client)

    def start(self) -> None:
        """Starts both; returns when the API server is ready. Raises `ProcessFailed`."""
        self.etcd.start()
        self.etcd.wait_ready(self.etcd_ready, _READY)
        self.apiserver.start()
        self.apiserver.wait_ready(self.apiserver_ready, _READY)

    def stop(self) -> None:
        """The API server first: it would only complain about an etcd that is gone."""
        # Open watches keep a graceful end waiting; nothing is lost by cutting them, all state is in etcd.
        self.apiserver.stop(grace=5)
        self.etcd.stop()

    def etcd_ready(self) -> bool:
        return _answers(f"https://127.0.0.1:{self.ports[0]}/health", self._etcd_context)

    def apiserver_ready(self) -> bool:
        return _answers(f"{self.server}/readyz", self._admin_context)


def start(state_dir: Path, binaries: Mapping[str, Path], options: Options | None = None) -> ControlPlane:
    """A ready control plane with its data in `state_dir`. Raises `ProcessFailed` with the end of the log that says why."""
    options = options or Options()
    for attempt in range(1, _TRIES + 1):
        plane = prepare(state_dir, binaries, options if attempt == 1 else Options(**{**vars(options), "ports": None}))
        try:
            plane.start()
            return plane
        except ProcessFailed as error:
            plane.stop()
            # A port that was free a moment ago may be taken now; then another set is tried.
            if attempt == _TRIES or "address already in use" not in str(error):
                raise
    raise AssertionError("unreachable")


def prepare(state_dir: Path, binaries: Mapping[str, Path], options: Options) -> ControlPlane:
    """Certificates, ports and the two processes, nothing started yet."""
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    ports = _ports(options.ports)
    etcd_ca = Authority(state_dir / "pki" / "etcd", "calctl-etcd-ca")
    authority = Authority(state_dir / "pki" / "kubernetes", "calctl-ca")
    return ControlPlane(
        state_dir=state_dir,
        ports=ports,
        etcd=_etcd(state_dir, binaries["etcd"], ports, etcd_ca, options),
        apiserver=_apiserver(state_dir, binaries["kube-apiserver"], ports, etcd_ca, authority, options),
        authority=authority,
        _etcd_context=etcd_ca.context(etcd_ca.client("kube-apiserver")),
        _admin_context=authority.context(authority.client("calctl-admin", ADMIN_GROUP)),
    )


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that are free right now, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [int(item.getsockname()[1]) for item in sockets]
    finally:
        for item in sockets:
            item.close()


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _ports(wanted: tuple[int, int, int] | None) -> tuple[int, int, int]:
    if wanted and all(port_is_free(port) for port in wanted):
        return wanted
    client, peer, secure = free_ports(3)
    return client, peer, secure


def _etcd(state: Path, binary: Path, ports: tuple[int, int, int], ca: Authority, options: Options) -> Process:
    pair = ca.server("etcd")
    client, peer = (f"https://127.0.0.1:{port}" for port in ports[:2])
    argv = [
        str(binary),
        "--name=calctl",
        f"--data-dir={state / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=calctl={peer}",
        "--client-cert-auth",
        f"--trusted-ca-file={ca.pair.cert}",
        f"--cert-file={pair.cert}",
        f"--key-file={pair.key}",
        "--peer-client-cert-auth",
        f"--peer-trusted-ca-file={ca.pair.cert}",
        f"--peer-cert-file={pair.cert}",
        f"--peer-key-file={pair.key}",
        "--log-level=warn",
        f"--unsafe-no-fsync={'false' if options.fsync else 'true'}",
    ]
    return Process("etcd", argv, state / "logs" / "etcd.log")


def _apiserver(
    state: Path, binary: Path, ports: tuple[int, int, int], etcd_ca: Authority, ca: Authority, options: Options
) -> Process:
    server, etcd_client = ca.server("kube-apiserver"), etcd_ca.client("kube-apiserver")
    signer = signing_key(state / "pki" / "service-account.key")
    argv = [
        str(binary),
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={ports[2]}",
        # Loopback can't be an endpoint of the `kubernetes` Service, and nothing here needs one.
        "--endpoint-reconciler-type=none",
        f"--service-cluster-ip-range={SERVICE_CIDR}",
        "--authorization-mode=RBAC",
        "--anonymous-auth=false",
        "--profiling=false",
        f"--client-ca-file={ca.pair.cert}",
        f"--tls-cert-file={server.cert}",
        f"--tls-private-key-file={server.key}",
        f"--etcd-servers=https://127.0.0.1:{ports[0]}",
        f"--etcd-cafile={etcd_ca.pair.cert}",
        f"--etcd-certfile={etcd_client.cert}",
        f"--etcd-keyfile={etcd_client.key}",
        f"--service-account-key-file={signer}",
        f"--service-account-signing-key-file={signer}",
        "--service-account-issuer=https://kubernetes.default.svc",
        *([] if options.service_accounts else ["--disable-admission-plugins=ServiceAccount"]),
        *options.apiserver_args,
    ]
    # Its graceful end waits for minutes once etcd is gone with it; it holds nothing that SIGKILL could lose.
    return Process("kube-apiserver", argv, state / "logs" / "kube-apiserver.log", orphan_signal=signal.SIGKILL)


def _answers(url: str, context: ssl.SSLContext) -> bool:
    try:
        return httpx.get(url, verify=context, timeout=2, trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False
