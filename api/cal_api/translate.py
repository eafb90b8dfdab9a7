"""`configuration` of a deployment -> our Workload: pure, one reader per field, every shape that clients send.

A field that no reader knows is kept for the echo. A value of a shape that isn't known is a BadRequest that names the field.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from pydantic import ValidationError

from cal_api import expose
from cal_api.bodies import explain
from cal_api.draft import Draft, Reader, items, mapping, plain, text, whole
from cal_api.errors import BadRequest, bad
from cal_api.masks import unmask
from cal_api.redact import redacted
from cal_api.values import word_of
from cal_crds.engines import ENGINES
from cal_crds.workload import Workload, WorkloadType

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")
_ENV_MOST = 256
_ARGUMENT = 8192
#: Splitting takes quadratic time.
_LINE = 32768
_VALUE = 32768
_OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?")


def translate(configuration: Mapping[str, Any], secret_name: str, before: Workload | None = None) -> Draft:
    """What a configuration says, as a change of `before` if there is one. Secret values end up in `secrets` and nowhere else."""
    draft = Draft(secret_name)
    for name, value in configuration.items():
        if value is None:
            continue
        if reader := READERS.get(name):
            reader(draft, f"configuration.{name}", value)
        else:
            draft.rest[name] = redacted({name: value})[name]
    unmask(draft, before)
    _engine_key(draft, before)
    if len(draft.env) > _ENV_MOST:
        raise BadRequest(f"configuration.env: {len(draft.env)} variables are too many; at most {_ENV_MOST}")
    check(workload_of(draft))
    return draft


def workload_of(draft: Draft) -> dict[str, Any]:
    """The fields of `spec.workload` that were said."""
    return {**draft.workload, **({"env": list(draft.env.values())} if draft.env else {})}


def check(workload: Mapping[str, Any]) -> None:
    """A last look by the resource's own model, so that nothing invalid is ever sent on."""
    try:
        Workload.model_validate(workload)
    except ValidationError as error:
        raise BadRequest(explain(error, "configuration")) from error


def with_job_definition(configuration: Mapping[str, Any], job: Mapping[str, Any] | None) -> dict[str, Any]:
    """The configuration with what the one operation of a job definition says underneath."""
    if not job:
        return dict(configuration)
    operations = items("job_definition.ops", job.get("ops"), 64)
    runs = [op for op in operations if isinstance(op, dict) and op.get("type", "container/run") == "container/run"]
    if len(runs) != 1:
        raise BadRequest(f"job_definition.ops: must hold exactly one container/run operation, not {len(runs)}")
    arguments = mapping("job_definition.ops.args", runs[0].get("args"))
    return {**arguments, **configuration}


# --- readers -----------------------------------------------------------------------------------------------------------


def _image(draft: Draft, where: str, value: Any) -> None:
    image = text(where, value, 512)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/@-]*", image):
        raise bad(where, value, "must be an image reference like vllm/vllm-openai:v0.11.0")
    draft.workload["image"] = image


def _engine(draft: Draft, where: str, value: Any) -> None:
    engine = text(where, value, 63).lower()
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", engine):
        raise bad(where, value, "must be a word like vllm, sglang, ollama, infinity or tei")
    draft.workload["engine"] = engine


def _type(draft: Draft, where: str, value: Any) -> None:
    try:
        draft.workload["type"] = word_of(WorkloadType, text(where, value)).value
    except ValueError as error:
        raise bad(where, value, f"{error}, or external") from error


def words(where: str, value: Any) -> list[str]:
    """A command line: a list of arguments, or one string that is split as a POSIX shell would split it. Nothing is run by a shell."""
    if isinstance(value, str):
        if len(value) > _LINE:
            raise BadRequest(
                f"{where}: {len(value)} characters are too many for one line; at most {_LINE}, or give a list"
            )
        try:
            value = shlex.split(value)
        except ValueError as error:
            raise bad(where, value, f"must be a command line or a list of arguments ({error})") from error
    arguments = [plain(f"{where}.{i}", item) for i, item in enumerate(items(where, value, 256))]
    for argument in arguments:
        if len(argument) > _ARGUMENT:
            raise BadRequest(f"{where}: an argument of {len(argument)} characters is too long; at most {_ARGUMENT}")
    return arguments


def _args(draft: Draft, where: str, value: Any) -> None:
    draft.workload["args"] = draft.agreed("args", where, words(where, value))


def _command(draft: Draft, where: str, value: Any) -> None:
    draft.workload["command"] = draft.agreed("command", where, words(where, value))


def _env(draft: Draft, where: str, value: Any) -> None:
    draft.env_is_whole = True
    pairs = _env_list(where, value) if isinstance(value, list) else list(mapping(where, value).items())
    seen: set[str] = set()
    for name, item in pairs:
        if not isinstance(name, str) or not _ENV_NAME.fullmatch(name):
            raise bad(f"{where}: the name", name, "must be letters, digits and _, not starting with a digit")
        if name in seen:
            raise BadRequest(f"{where}: {name} stands there twice")
        seen.add(name)
        _set_env(draft, f"{where}.{name}", name, item)


def _set_env(draft: Draft, where: str, name: str, item: Any) -> None:
    content = "" if item is None else plain(where, item)
    if len(content) > _VALUE:
        raise BadRequest(f"{where}: {len(content)} characters are too many; at most {_VALUE}")
    draft.set_env(name, content)


def _env_list(where: str, value: list[Any]) -> list[tuple[Any, Any]]:
    """[{"name", "value"}] or ["NAME=value"]."""
    pairs: list[tuple[Any, Any]] = []
    for index, item in enumerate(items(where, value, _ENV_MOST)):
        if isinstance(item, str) and "=" in item:
            name, _, content = item.partition("=")
            pairs.append((name, content))
        elif isinstance(item, dict) and "name" in item:
            pairs.append((item["name"], item.get("value")))
        else:
            # The value may be a secret: it isn't shown.
            raise BadRequest(f'{where}.{index}: must be {{"name": ..., "value": ...}} or "NAME=value"')
    return pairs


def _expose(draft: Draft, where: str, value: Any) -> None:
    ports, probe = expose.read(where, value)
    draft.workload["ports"] = ports
    if probe:
        draft.workload["readinessProbe"] = probe


def _gpu(draft: Draft, where: str, value: Any) -> None:
    # `true` is one provider's way to say: as many as the pool has
    if value is True:
        return
    draft.gpus = draft.agreed("gpus", where, 0 if value is False else whole(where, value, 0, 64))


def _model_id(draft: Draft, where: str, value: Any) -> None:
    draft.model_id = text(where, value)


def _served_name(draft: Draft, where: str, value: Any) -> None:
    draft.served_name = text(where, value)


def _resources(draft: Draft, where: str, value: Any) -> None:
    known = {"cpu": "cpu", "memory": "memory", "storage": "storage", "disk": "storage"}
    if isinstance(value, list):  # a provider's list of files to fetch: not ours to read
        draft.rest["resources"] = redacted(value)
        return
    for name, amount in mapping(where, value).items():
        if name not in known:
            raise bad(where, name, f"must be one of {list(known)}")
        _resource(draft, known[name], f"{where}.{name}", amount)


def _resource(draft: Draft, name: str, where: str, amount: Any, unit: str = "") -> None:
    quantity = plain(where, amount) + unit
    if isinstance(amount, bool) or len(quantity) > 32 or not _QUANTITY.fullmatch(quantity):
        raise bad(where, amount, 'must be a quantity like 4, "500m" or "16Gi"')
    draft.workload.setdefault("resources", {})[name] = quantity


def _vcpu(draft: Draft, where: str, value: Any) -> None:
    _resource(draft, "cpu", where, value)


def _ram_gb(draft: Draft, where: str, value: Any) -> None:
    _resource(draft, "memory", where, value, "G")


def _disk_gb(draft: Draft, where: str, value: Any) -> None:
    _resource(draft, "storage", where, value, "G")


def _api_key(draft: Draft, where: str, value: Any) -> None:
    draft.set_env("API_KEY", plain(where, value))
    draft.external_key = "API_KEY"


def _engine_key(draft: Draft, before: Workload | None) -> None:
    """An engine that knows its key by another name gets it under that name too, from the same place."""
    engine = ENGINES.get(draft.workload.get("engine") or (before and before.engine) or "")
    name = engine.key if engine else None
    if name and draft.external_key and name not in draft.env:
        draft.env[name] = {**draft.env[draft.external_key], "name": name}


def _token_name(draft: Draft, where: str, value: Any) -> None:
    name = text(where, value, 253)
    if not _OBJECT_NAME.fullmatch(name):
        raise bad(where, value, "must be the name of a Secret with the key token")
    draft.env["HF_TOKEN"] = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": name, "key": "token"}}}


def _pull_secrets(draft: Draft, where: str, value: Any) -> None:
    names = [item.get("name") if isinstance(item, dict) else item for item in items(where, value, 8)]
    for name in names:
        if not isinstance(name, str) or not _OBJECT_NAME.fullmatch(name):
            raise bad(where, name, "must be names of Secrets")
    draft.workload["imagePullSecrets"] = [{"name": name} for name in dict.fromkeys(names)]


def _work_dir(draft: Draft, where: str, value: Any) -> None:
    draft.workload["workingDir"] = text(where, value)


def _training(draft: Draft, where: str, value: Any) -> None:
    """A training job's parameter: the image reads it from the environment."""
    name = where.rpartition(".")[2]
    _set_env(draft, where, name.upper(), text(where, value, _VALUE))
    if name == "base_model" and draft.model_id is None:
        draft.model_id = text(where, value)


def _endpoint(draft: Draft, where: str, value: Any) -> None:
    endpoint = text(where, value, 2048)
    if not re.fullmatch(r"https?://[^\s]+", endpoint):
        raise bad(where, value, "must be an http or https URL")
    draft.endpoint = endpoint


def _max_runtime(draft: Draft, where: str, value: Any) -> None:
    draft.max_runtime_seconds = whole(where, value, 1, 315360000)


#: configuration field -> its reader.
READERS: Final[Mapping[str, Reader]] = MappingProxyType(
    {
        "api_key": _api_key,
        "args": _args,
        "base_model": _training,
        "cmd": _args,
        "command": _command,
        "dataset_url": _training,
        "disk_gb": _disk_gb,
        "endpoint": _endpoint,
        "engine": _engine,
        "entrypoint": _command,
        "env": _env,
        "expose": _expose,
        "git_repo": _training,
        "gpu": _gpu,
        "gpu_count": _gpu,
        "hf_token_name": _token_name,
        "image": _image,
        "image_pull_secrets": _pull_secrets,
        "inference_model": _served_name,
        "max_runtime_seconds": _max_runtime,
        "model_id": _model_id,
        "ram_gb": _ram_gb,
        "resources": _resources,
        "training_script": _training,
        "vcpu": _vcpu,
        "work_dir": _work_dir,
        "workload_type": _type,
    }
)
