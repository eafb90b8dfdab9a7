"""Serving engines: what an engine's name implies, so that `engine: vllm` and a model are enough. Whatever the user gives stands.

An engine that isn't in the table implies nothing: its name is then a label beside an image that the user gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from cal_crds.workload import ENGINE_PORT, HTTPGet, Port, PortProtocol, Probe, ServedModel, Workload

_EVERYWHERE: Final = "0.0.0.0"
#: How an engine is told its API key on the command line; whoever writes it there brings their own.
_OPTION: Final = "--api-key"

#: Pulls the model before the port opens, so that what answers can serve. The model is an argument, never part of the script.
_OLLAMA: Final = """\
set -e
export OLLAMA_HOST=127.0.0.1:11500
ollama serve &
trap 'kill $!' EXIT
until ollama list >/dev/null 2>&1; do kill -0 $!; sleep 1; done
ollama pull "$1"
if [ "$2" != "$1" ]; then ollama cp "$1" "$2"; fi
kill $!
wait $! || true
trap - EXIT
OLLAMA_HOST=0.0.0.0:$3 exec ollama serve
"""

#: SGLang takes its key as an argument only. What is frozen and shown names the variable, never the key.
_SGLANG: Final = 'exec python3 -m sglang.launch_server "$@" ${SGLANG_API_KEY:+"--api-key=$SGLANG_API_KEY"}'


@dataclass(frozen=True)
class Start:
    """What the command is made from. `served` is the name that clients say."""

    model: str
    served: str
    port: int
    gpus: int


@dataclass(frozen=True)
class Engine:
    """`image` is pinned. An empty `command` keeps the image's entrypoint; `health` is a path that answers 200 once it serves, also
    without the API key. `key` is the variable that the engine takes its API key from, None if it knows no keys."""

    image: str
    port: int
    health: str
    args: Callable[[Start], list[str]]
    key: str | None
    command: tuple[str, ...] = ()
    #: Whether it is our command that reads the variable, and not the engine itself.
    key_by_command: bool = False


class NoKey(Exception):
    """A workload gets no API key of ours; the message says why, to a person."""


def _vllm(start: Start) -> list[str]:
    split = ["--tensor-parallel-size", str(start.gpus)] if start.gpus > 1 else []
    return ["--model", start.model, "--served-model-name", start.served, "--port", str(start.port), *split]


def _sglang(start: Start) -> list[str]:
    split = ["--tp", str(start.gpus)] if start.gpus > 1 else []
    where = ["--host", _EVERYWHERE, "--port", str(start.port)]
    return ["--model-path", start.model, "--served-model-name", start.served, *where, *split]


def _ollama(start: Start) -> list[str]:
    return [start.model, start.served, str(start.port)]


def _infinity(start: Start) -> list[str]:
    return ["v2", "--model-id", start.model, "--served-model-name", start.served, "--port", str(start.port)]


def _tei(start: Start) -> list[str]:
    return ["--model-id", start.model, "--port", str(start.port)]


ENGINES: Final[Mapping[str, Engine]] = MappingProxyType(
    {
        "infinity": Engine("michaelf34/infinity:0.0.77", 7997, "/health", _infinity, "INFINITY_API_KEY"),
        "ollama": Engine(
            "ollama/ollama:0.15.2",
            11434,
            "/api/version",
            _ollama,
            key=None,
            command=("/bin/sh", "-c", _OLLAMA, "ollama-with-model"),
        ),
        "sglang": Engine(
            "lmsysorg/sglang:v0.5.12",
            30000,
            "/health",
            _sglang,
            key="SGLANG_API_KEY",
            command=("/bin/sh", "-c", _SGLANG, "sglang-with-key"),
            key_by_command=True,
        ),
        "tei": Engine("ghcr.io/huggingface/text-embeddings-inference:1.8.1", 8080, "/health", _tei, "API_KEY"),
        "vllm": Engine("vllm/vllm-openai:v0.11.0", 8000, "/health", _vllm, "VLLM_API_KEY"),
    }
)


def expand(workload: Workload, model: ServedModel, gpu_count: int = 1) -> Workload:
    """The workload with all that its engine implies and the user left out. `gpu_count` is per replica.

    Image, ports and probe are filled in one by one. Command and arguments belong together: either given, neither is touched.
    """
    engine = ENGINES.get(workload.engine or "")
    if engine is None:
        return workload
    ports = workload.ports or [Port(name=ENGINE_PORT, port=engine.port, protocol=PortProtocol.HTTP)]
    filled = workload.model_copy(
        update={
            "image": workload.image or engine.image,
            "ports": ports,
            "readiness_probe": workload.readiness_probe or _probe(engine, ports[0]),
        }
    )
    if workload.command or workload.args:
        return filled
    name = model.id or model.name
    start = Start(model=name, served=model.served_name or name, port=ports[0].port, gpus=gpu_count)
    return filled.model_copy(update={"command": list(engine.command), "args": engine.args(start)})


def key_variable(workload: Workload) -> str:
    """The variable in which the derived API key is handed to the engine; the same before and after `expand`.

    NoKey where there is no engine that takes one, or where the workload brings its own: then ours would be in the way.
    """
    name = workload.engine
    engine = ENGINES.get(name or "")
    if engine is None:
        raise NoKey(f"the engine {name!r} is none that we know" if name else "the workload names no engine")
    if engine.key is None:
        raise NoKey(f"{name} knows no API keys: whoever reaches its endpoint may use it")
    if any(variable.name == engine.key for variable in workload.env):
        raise NoKey(f"the workload sets {engine.key} itself")
    ours = tuple(workload.command) == engine.command
    if any(_OPTION in part for part in [*(() if ours else workload.command), *workload.args]):
        raise NoKey(f"the workload gives {_OPTION} itself")
    if engine.key_by_command and not ours and (workload.command or workload.args):
        raise NoKey(f"the workload starts {name} by a command of its own, which must give {_OPTION}")
    return engine.key


def _probe(engine: Engine, port: Port) -> Probe:
    return Probe(http_get=HTTPGet(path=engine.health, port=port.name))
