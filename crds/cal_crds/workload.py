"""What runs on a node: the workload of a ModelDeployment, frozen into each of its ComputeNodes."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Final

from pydantic import Field

from cal_crds.base import Label, Model, ObjectName, Quantity, Rule, Text, list_atomic, list_map


class WorkloadType(StrEnum):
    """What the workload is for. Training and Batch end by themselves: they are not started again after exit 0."""

    INFERENCE = "Inference"
    EMBEDDING = "Embedding"
    TRAINING = "Training"
    BATCH = "Batch"


#: Types that are done when their command exits with 0.
FINITE = frozenset({WorkloadType.TRAINING, WorkloadType.BATCH})

Argument = Annotated[str, Field(max_length=8192)]


class SecretKeyRef(Model):
    """A key of a Secret in the object's own namespace."""

    name: Annotated[ObjectName, Field(description="Name of the Secret.")]
    key: Annotated[
        str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$", description="Key in the Secret.")
    ]


class EnvSource(Model):
    """Where a variable's value comes from."""

    secret_key_ref: Annotated[SecretKeyRef, Field(description="The Secret key that holds the value.")]


class EnvVar(Model):
    """An environment variable: a literal value, or a reference to a Secret. Secrets never stand here in the clear."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("!(has(self.value) && has(self.valueFrom))", "give value or valueFrom, not both"),
    )

    name: Annotated[
        str,
        Field(min_length=1, max_length=256, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="Name of the variable."),
    ]
    value: Annotated[str | None, Field(max_length=32768, description="Literal value.")] = None
    value_from: Annotated[EnvSource | None, Field(description="Source of the value, in place of a literal.")] = None


class PortProtocol(StrEnum):
    """What is spoken on a port."""

    HTTP = "Http"
    WEBSOCKET = "WebSocket"
    TCP = "Tcp"


class Port(Model):
    """A port that the workload listens on. The first one becomes the endpoint."""

    name: Annotated[Label, Field(description="Name, for probes.")]
    port: Annotated[int, Field(ge=1, le=65535, description="Port number inside of the workload.")]
    protocol: Annotated[PortProtocol, Field(description="Http, WebSocket or Tcp.")] = PortProtocol.HTTP


class HTTPGet(Model):
    """An HTTP request that must be answered with 200 to 399."""

    path: Annotated[
        str,
        Field(
            min_length=1,
            max_length=1024,
            pattern=r"^/[!-~]*$",
            description="Path, with a leading slash, percent-encoded.",
        ),
    ]
    port: Annotated[Label, Field(description="Name of one of the ports.")]


class TCPSocket(Model):
    """A TCP connection that must be accepted."""

    port: Annotated[Label, Field(description="Name of one of the ports.")]


class Probe(Model):
    """How to see that the workload serves. Without one, the first port must accept a TCP connection."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("has(self.httpGet) != has(self.tcpSocket)", "give exactly one of httpGet and tcpSocket"),
    )

    http_get: Annotated[HTTPGet | None, Field(description="Probe by HTTP.")] = None
    tcp_socket: Annotated[TCPSocket | None, Field(description="Probe by TCP.")] = None
    period_seconds: Annotated[int, Field(ge=1, le=3600, description="Seconds between two probes.")] = 5
    timeout_seconds: Annotated[
        int, Field(ge=1, le=300, description="Seconds until a probe counts as not answered.")
    ] = 3


class Resources(Model):
    """What one replica needs besides GPUs."""

    cpu: Annotated[Quantity | None, Field(description='CPUs, like "4" or "500m". Absent: what the offer has.')] = None
    memory: Annotated[Quantity | None, Field(description='Memory, like "16Gi". Absent: what the offer has.')] = None
    storage: Annotated[Quantity | None, Field(description='Disk, like "50Gi". Absent: the provider\'s default.')] = None


class ImagePullSecret(Model):
    """A Secret of type kubernetes.io/dockerconfigjson in the object's namespace."""

    name: Annotated[ObjectName, Field(description="Name of the Secret.")]


#: Engines that bring an image, arguments and a port called ENGINE_PORT of their own; see `engines.py`.
ENGINE_NAMES: Final = ("infinity", "ollama", "sglang", "tei", "vllm")
ENGINE_PORT: Final = "http"


def _probed_port(probe: str) -> Rule:
    """The probe names one of the ports, or the one that the engine brings."""
    asked = f"self.readinessProbe.{probe}"
    brings = f"has(self.engine) && self.engine in {list(ENGINE_NAMES)} && {asked}.port == '{ENGINE_PORT}'"
    return Rule(
        f"!has(self.readinessProbe) || !has({asked}) || (has(self.ports) && size(self.ports) > 0"
        f" ? self.ports.exists(p, p.name == {asked}.port) : {brings})",
        f"readinessProbe.{probe}.port must be the name of one of ports",
    )


class Workload(Model):
    """The container (or, with the local adapter, the process) that serves the model."""

    rules: ClassVar[tuple[Rule, ...]] = (
        _probed_port("httpGet"),
        _probed_port("tcpSocket"),
        Rule(
            "!has(self.ports) || self.ports.all(p, self.ports.exists_one(q, q.port == p.port))",
            "ports must have different numbers",
        ),
    )

    type: Annotated[
        WorkloadType,
        Field(description="What it is for. Training and Batch end by themselves: not started again after exit 0."),
    ] = WorkloadType.INFERENCE
    engine: Annotated[
        str | None,
        Field(
            max_length=63,
            pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
            description="Serving engine (vllm, sglang, ollama, infinity, tei): implies image, args, port and probe; each can be overridden.",
        ),
    ] = None
    image: Annotated[
        str | None,
        Field(
            max_length=512,
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]*$",
            description="Container image reference.",
        ),
    ] = None
    command: Annotated[list[Argument], list_atomic(256), Field(description="Replaces the image's entrypoint.")] = Field(
        default_factory=list
    )
    args: Annotated[list[Argument], list_atomic(256), Field(description="Arguments of the entrypoint.")] = Field(
        default_factory=list
    )
    env: Annotated[list[EnvVar], list_map("name", 256), Field(description="Environment variables.")] = Field(
        default_factory=list
    )
    ports: Annotated[list[Port], list_map("name", 16), Field(description="Ports; the first is the endpoint.")] = Field(
        default_factory=list
    )
    readiness_probe: Annotated[Probe | None, Field(description="How to see that it serves.")] = None
    resources: Annotated[Resources | None, Field(description="CPU, memory and disk of one replica.")] = None
    image_pull_secrets: Annotated[
        list[ImagePullSecret], list_map("name", 8), Field(description="Secrets for pulling the image.")
    ] = Field(default_factory=list)
    working_dir: Annotated[Text | None, Field(description="Working directory of the command.")] = None


class ServedModel(Model):
    """Which model is served."""

    name: Annotated[Text, Field(min_length=1, description="Name of the model, any characters.")]
    version: Annotated[Text | None, Field(description="Version of the model.")] = None
    id: Annotated[
        Text | None, Field(description="Identifier of the model in the caller's registry, or its repository id.")
    ] = None
    served_name: Annotated[
        Text | None, Field(description="Name under which the endpoint serves it (REST inference_model).")
    ] = None
