"""The Pod of an instance, as a dict. What it owns stands in `owned`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

from cal_adapters.contract import LaunchRequest
from cal_adapters.errors import Refused
from cal_adapters.k8s.translate import (
    ANNOTATION_NODE,
    ANNOTATION_PRICE,
    ATTRIBUTE_POOL,
    ATTRIBUTE_SELECTOR,
    GATE,
    LABEL_NODE_POOL,
    Amounts,
    attribute,
)
from cal_crds import money
from cal_crds.cluster import Body
from cal_crds.meta import (
    LABEL_DEPLOYMENT,
    LABEL_INSTALLATION,
    LABEL_MANAGED_BY,
    LABEL_POOL,
    LABEL_PROVIDER,
    LABEL_TOKEN,
    MANAGER_OPERATOR,
)
from cal_crds.names import label_hash
from cal_crds.pool import Tenancy
from cal_crds.workload import Port, Probe

CONTAINER: Final = "main"
_HOSTNAME: Final = "kubernetes.io/hostname"
#: Labels that only nodes with GPUs carry: where there are others, a Pod without GPUs leaves these alone.
_GPU_LABELS: Final = ("nvidia.com/gpu.product", "amd.com/gpu.product-name", "gpu.intel.com/product")


def labels(request: LaunchRequest, provider: str) -> dict[str, str]:
    """On all objects of the instance. The selector of the deployment's `scale` is among them."""
    return {
        LABEL_MANAGED_BY: MANAGER_OPERATOR,
        LABEL_INSTALLATION: request.mark.installation,
        LABEL_TOKEN: request.mark.token,
        LABEL_DEPLOYMENT: request.deployment_uid,
        LABEL_POOL: request.pool_uid,
        LABEL_PROVIDER: provider if len(provider) <= 63 else label_hash(provider),
    }


def pod(request: LaunchRequest, namespace: str, provider: str, asked: Amounts, price: Decimal) -> Body:
    """The Pod, held back by our gate. It doesn't restart: the operator replaces, and sees how it ended."""
    if not request.workload.image:
        raise Refused("A Kubernetes Pod needs workload.image")
    pull = {"imagePullSecrets": [{"name": pull_secret_name(request)}]} if request.logins else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": str(request.mark),
            "namespace": namespace,
            "labels": labels(request, provider),
            "annotations": {
                ANNOTATION_NODE: f"{request.namespace}/{request.node}",
                ANNOTATION_PRICE: money.render(price),
            },
        },
        "spec": {
            "restartPolicy": "Never",
            "schedulingGates": [{"name": GATE}],
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [_container(request, asked)],
            "affinity": _affinity(request),
            "topologySpreadConstraints": [_apart(request.deployment_uid)],
            "tolerations": _tolerations(request, asked),
            **pull,
            **_shared_memory(asked),
        },
    }


def pull_secret_name(request: LaunchRequest) -> str:
    """Of the Secret with the logins of the image's registries."""
    return f"{request.mark}-pull"


def _container(request: LaunchRequest, asked: Amounts) -> Body:
    workload = request.workload
    optional: Body = {
        "command": workload.command,
        "args": workload.args,
        "workingDir": workload.working_dir,
        "ports": [{"containerPort": port.port} for port in distinct(workload.ports)],
        "env": [_from_secret(value.name, str(request.mark)) for value in request.env],
        "readinessProbe": _readiness(workload.readiness_probe, workload.ports),
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}] if asked.gpus else None,
    }
    return {
        "name": CONTAINER,
        "image": workload.image,
        "resources": _resources(asked),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **{key: value for key, value in optional.items() if value},
    }


def _from_secret(name: str, secret: str) -> Body:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": name}}}


def distinct(ports: Sequence[Port]) -> list[Port]:
    """One entry per number: two names may share one, but neither Pod nor Service take it twice."""
    return list({port.port: port for port in reversed(ports)}.values())[::-1]


def _resources(asked: Amounts) -> Body:
    """Memory and disk are bounds too, so that one workload can't starve another; a CPU that is idle may be used."""
    requests: dict[str, str] = {}
    if asked.cpu is not None:
        requests["cpu"] = f"{int(asked.cpu * 1000)}m"
    limits: dict[str, str] = {}
    if asked.memory is not None:
        limits["memory"] = asked.memory
    if asked.storage is not None:
        limits["ephemeral-storage"] = asked.storage
    if asked.gpus and asked.gpu_resource:
        limits[asked.gpu_resource] = str(asked.gpus)
    return {"requests": {**requests, **limits}, "limits": limits}


def _readiness(probe: Probe | None, ports: Sequence[Port]) -> Body | None:
    """The workload's probe; without one the first port must accept a connection; without a port there is none."""
    if not ports:
        return None
    numbers = {port.name: port.port for port in ports}
    timing = {"periodSeconds": probe.period_seconds, "timeoutSeconds": probe.timeout_seconds} if probe else {}
    if probe and probe.http_get:
        number = _number(numbers, probe.http_get.port)
        return {"httpGet": {"path": probe.http_get.path, "port": number}, **timing}
    number = _number(numbers, probe.tcp_socket.port) if probe and probe.tcp_socket else ports[0].port
    return {"tcpSocket": {"port": number}, **timing}


def _number(numbers: Mapping[str, int], name: str) -> int:
    if name not in numbers:
        raise Refused(f"workload.readinessProbe names port {name!r}; the ports are {sorted(numbers)}")
    return numbers[name]


def _shared_memory(asked: Amounts) -> Body:
    """GPU frameworks pass tensors between processes through /dev/shm; the runtime's 64 MB don't do."""
    return {"volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}]} if asked.gpus else {}


def _affinity(request: LaunchRequest) -> Body:
    node: Body = {}
    if chosen := _expressions(attribute(request.offer, ATTRIBUTE_SELECTOR) or ""):
        terms = [{"matchExpressions": chosen}]
        node["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": terms}
    if not request.gpu_count:
        without = [{"key": key, "operator": "DoesNotExist"} for key in _GPU_LABELS]
        preference = {"weight": 100, "preference": {"matchExpressions": without}}
        node["preferredDuringSchedulingIgnoredDuringExecution"] = [preference]
    affinity: Body = {"nodeAffinity": node} if node else {}
    if request.tenancy is Tenancy.DEDICATED:
        affinity["podAntiAffinity"] = _alone(request.pool_uid)
    return affinity


def _expressions(selector: str) -> list[Body]:
    """A label selector's text (`a=b,!c`) as the match expressions of a node affinity."""
    found: list[Body] = []
    for part in filter(None, selector.split(",")):
        key, equals, value = part.partition("=")
        if equals:
            found.append({"key": key, "operator": "In", "values": [value]})
        else:
            found.append({"key": key.removeprefix("!"), "operator": "DoesNotExist"})
    return found


def _apart(deployment_uid: str) -> Body:
    """Replicas of one deployment on different machines where there is a choice: a machine that dies takes one of them."""
    return {
        "maxSkew": 1,
        "topologyKey": _HOSTNAME,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {LABEL_DEPLOYMENT: deployment_uid}},
    }


def _alone(pool_uid: str) -> Body:
    """No machine with another pool's Pod. The scheduler holds it both ways: no such Pod comes here later either."""
    others = [
        {"key": LABEL_POOL, "operator": "Exists"},
        {"key": LABEL_POOL, "operator": "NotIn", "values": [pool_uid]},
    ]
    term = {"topologyKey": _HOSTNAME, "labelSelector": {"matchExpressions": others}, "namespaceSelector": {}}
    return {"requiredDuringSchedulingIgnoredDuringExecution": [term]}


def _tolerations(request: LaunchRequest, asked: Amounts) -> list[Body]:
    """Taints that say "only for those who ask for this": the GPU's own, by convention named as the resource, and the pool's."""
    found: list[Body] = []
    if asked.gpu_resource:
        found.append({"key": asked.gpu_resource, "operator": "Exists"})
    if pool := attribute(request.offer, ATTRIBUTE_POOL):
        found.append({"key": LABEL_NODE_POOL, "operator": "Equal", "value": pool})
    return found
