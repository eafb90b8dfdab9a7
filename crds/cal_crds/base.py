"""What all models share: camelCase names, the field types of the conventions, and the object metadata."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel


class Rule:
    """A CEL rule of an object: refused with `message` unless `rule` holds."""

    def __init__(self, rule: str, message: str) -> None:
        self.rule, self.message = rule, message


def _complete(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """What pydantic's JSON schema leaves out: our rules, and the default of parts that are filled in themselves."""
    assert issubclass(model, Model)
    if model.rules:
        schema["x-kubernetes-validations"] = [{"rule": rule.rule, "message": rule.message} for rule in model.rules]
    for name, field in model.model_fields.items():
        if isinstance(field.default_factory, type) and issubclass(field.default_factory, Model):
            # Written out: the API server checks a default against the rules before it fills in what is in it.
            whole = field.default_factory().dump()
            schema["properties"][field.alias or name]["default"] = {k: v for k, v in whole.items() if v not in ("", [])}


class Model(BaseModel):
    """A part of a resource. `rules` become `x-kubernetes-validations` of the generated schema."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
        use_enum_values=False,
        protected_namespaces=(),
        json_schema_extra=_complete,
    )
    rules: ClassVar[tuple[Rule, ...]] = ()

    def dump(self, only: set[str] | None = None) -> dict[str, Any]:
        """As the API server takes it: camelCase, absent instead of null; defaults are written out. `only`: these fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, include=only)


def rfc3339(moment: datetime) -> str:
    """A moment as Kubernetes writes it: UTC, whole seconds, `Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_rfc3339(moment: datetime) -> str:
    """A moment with microseconds, as `metav1.MicroTime` writes it: for what is compared more finely than a second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _list(kind: str, limit: int, **extra: Any) -> Any:
    return Field(max_length=limit, json_schema_extra={"x-kubernetes-list-type": kind, **extra})


def list_set(limit: int) -> Any:
    """Annotation of a list of unique scalars."""
    return _list("set", limit)


def list_atomic(limit: int) -> Any:
    """Annotation of a list that is always written whole."""
    return _list("atomic", limit)


def list_map(key: str, limit: int) -> Any:
    """Annotation of a list of objects told apart by the field `key`."""
    return _list("map", limit, **{"x-kubernetes-list-map-keys": [key]})


#: The API server's own check lets through the year 0 and an offset of 25 hours, which no Python can read.
_MOMENT: dict[str, Any] = {
    "maxLength": 64,
    "pattern": r"^2[0-9]{3}-[0-9]{2}-[0-9]{2}[Tt][0-9:.]+([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$",
}
Time = Annotated[
    datetime, PlainSerializer(rfc3339, return_type=str, when_used="json"), Field(json_schema_extra={**_MOMENT})
]
MicroTime = Annotated[
    datetime, PlainSerializer(micro_rfc3339, return_type=str, when_used="json"), Field(json_schema_extra={**_MOMENT})
]
#: US dollars as a decimal string: never a float. At most nine decimals.
Money = Annotated[str, Field(max_length=24, pattern=r"^(0|[1-9][0-9]{0,11})(\.[0-9]{1,9})?$")]
#: A Kubernetes quantity, like "4", "500m" or "16Gi".
Quantity = Annotated[str, Field(max_length=32, pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$")]
#: The name of a Kubernetes object.
ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
#: A DNS label, for names within an object.
Label = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
UID = Annotated[str, Field(max_length=64)]
#: A word of a closed or provider-given list.
Word = Annotated[str, Field(max_length=128)]
#: Free text without control characters (they break terminals and headers).
Text = Annotated[str, Field(max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$")]
Message = Annotated[str, Field(max_length=4096)]
URL = Annotated[str, Field(max_length=2048)]
#: The URL of a service that we call: with a host, without a login in it, percent-encoded where need be.
ServiceURL = Annotated[str, Field(max_length=2048, pattern=r"^https?://[A-Za-z0-9._\[\]:-]+([/?#][!-~]*)?$")]


class OwnerReference(Model):
    """The part of an owner reference that we read."""

    kind: str
    name: str
    uid: str


class ObjectMeta(BaseModel):
    """The part of `metadata` that we read."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")

    name: str = ""
    namespace: str | None = None
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    finalizers: list[str] = Field(default_factory=list)
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    owner_references: list[OwnerReference] = Field(default_factory=list)


class Resource(Model):
    """An object of one of our kinds."""

    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)

    @classmethod
    def parse(cls, body: dict[str, Any]) -> Self:
        return cls.model_validate(body)
