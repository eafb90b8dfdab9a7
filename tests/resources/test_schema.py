"""From pydantic to structural schemas: the traps one by one, and what checkers of CRDs look for in the result."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import ConfigDict, Field

from cal_crds import conditions, crd, docs
from cal_crds.__main__ import main
from cal_crds.base import Model, Rule, list_atomic, list_map
from cal_crds.meta import KINDS, Kind
from cal_crds.schema import NotStructural, structural

Schema = dict[str, Any]


class Colour(StrEnum):
    """Never shown: the field's own description is."""

    RED = "Red"
    BLUE = "Blue"


class Part(Model):
    """A part."""

    rules = (Rule("self.size > 0", "size must be positive"),)

    size: Annotated[int, Field(gt=0, lt=10, description="Size.")] = 1
    label: Annotated[str, Field(max_length=5, description="Label.")] = ""


class Whole(Model):
    """A whole
    on two lines."""

    part: Annotated[Part, Field(description="The part.")]
    spare: Annotated[Part | None, Field(description="The spare part.")] = None
    filled: Annotated[Part, Field(description="A part that is made.")] = Field(default_factory=Part)
    parts: Annotated[list[Part], list_map("label", 3), Field(description="Parts.")] = Field(default_factory=list)
    words: Annotated[list[str], list_atomic(2), Field(description="Words.")] = Field(default_factory=list)
    version: Annotated[Literal["v1"], Field(description="Version.")] = "v1"
    colour: Annotated[Colour, Field(description="Red or Blue.")] = Colour.RED
    count: Annotated[int | None, Field(ge=0, le=2**40, description="Count.")] = None


def test_references_are_written_out_where_they_stand() -> None:
    part = structural(Whole)["properties"]["part"]
    assert part["description"] == "The part."
    assert set(part["properties"]) == {"size", "label"}
    assert "$ref" not in str(structural(Whole))
    assert "$defs" not in structural(Whole)


def test_an_optional_field_is_its_type_without_null_and_without_a_default() -> None:
    spare = structural(Whole)["properties"]["spare"]
    assert spare["type"] == "object"
    assert "anyOf" not in spare
    assert "default" not in spare
    assert "spare" not in structural(Whole).get("required", [])


def test_exclusive_bounds_become_inclusive_ones() -> None:
    size = structural(Part)["properties"]["size"]
    assert (size["minimum"], size["maximum"]) == (1, 9)
    assert "exclusiveMinimum" not in size


def test_a_constant_becomes_a_list_of_one() -> None:
    version = structural(Whole)["properties"]["version"]
    assert version["enum"] == ["v1"]
    assert "const" not in version


def test_forbidden_extra_fields_are_left_to_pruning() -> None:
    class Strict(Model):
        model_config = ConfigDict(extra="forbid")
        name: Annotated[str, Field(max_length=3, description="Name.")]

    assert structural(Strict).keys() == {"type", "properties", "required"}


def test_an_enum_is_a_list_of_words_under_the_fields_own_description() -> None:
    colour = structural(Whole)["properties"]["colour"]
    assert colour == {"type": "string", "enum": ["Red", "Blue"], "default": "Red", "description": "Red or Blue."}


def test_defaults_that_say_nothing_are_left_out_and_made_parts_are_written_out() -> None:
    properties = structural(Whole)["properties"]
    assert "default" not in properties["words"]
    assert "default" not in properties["part"]["properties"]["label"]
    assert properties["filled"]["default"] == {"size": 1}


def test_rules_lists_and_widths() -> None:
    properties = structural(Whole)["properties"]
    assert properties["part"]["x-kubernetes-validations"] == [
        {"rule": "self.size > 0", "message": "size must be positive"}
    ]
    assert properties["parts"]["x-kubernetes-list-map-keys"] == ["label"]
    assert properties["words"]["maxItems"] == 2
    assert properties["count"]["format"] == "int64"
    assert properties["part"]["properties"]["size"]["format"] == "int32"
    assert structural(Whole)["description"] == "A whole on two lines."


@pytest.mark.parametrize(
    "annotation",
    [int | str, dict[str, str], tuple[int, str], float | bool],
    ids=["choice", "map", "tuple", "two types"],
)
def test_what_no_structural_schema_can_say_is_refused_with_its_place(annotation: Any) -> None:
    odd = type("Odd", (Model,), {"__annotations__": {"field": annotation}, "__module__": __name__})
    with pytest.raises(NotStructural, match=r"Odd\.field"):
        structural(odd)


# --- the generated files -------------------------------------------------------------------------------------------------


def test_the_files_are_current() -> None:
    assert main(["--check"]) == 0


def test_a_stale_file_is_named(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "crds").mkdir()
    monkeypatch.setattr(crd, "folder", lambda: tmp_path / "crds")
    assert main(["--check"]) == 1
    stale = capsys.readouterr().err
    assert "computepools.calayer.dev.yaml" in stale
    assert "resources.md" in stale
    assert main([]) == 0
    assert main(["--check"]) == 0


@pytest.mark.parametrize("name", crd.files())
def test_a_file_is_below_64_kb_and_holds_what_the_models_say(name: str) -> None:
    text = crd.files()[name]
    assert len(text.encode()) < 64_000
    assert yaml.safe_load(text) in crd.crds()


def _parts(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from _parts(part, f"{path}.{name}")
    if "items" in schema:
        yield from _parts(schema["items"], f"{path}[]")


def _all_parts() -> list[tuple[str, Schema]]:
    return [(f"{kind.name}{path}", part) for kind in KINDS for path, part in _parts(crd.schema(kind))]


def _faults(part: Schema) -> list[str]:
    """What crd-schema-checker's comparators, and our own conventions beyond them, have against a part of a schema."""
    type_, faults = part.get("type"), []
    if type_ not in {"object", "array", "string", "integer"}:
        faults.append(f"NoBools, NoFloats: type {type_}")
    if str(part.get("format", "")).startswith("uint"):
        faults.append("NoUints")
    if "additionalProperties" in part or (type_ == "object" and not part.get("properties")):
        faults.append("NoMaps")
    if type_ == "array" and not {"x-kubernetes-list-type", "maxItems"} <= part.keys():
        faults.append("ListsMustHaveSSATags, bounds")
    if type_ == "string" and not ("enum" in part or "maxLength" in part):
        faults.append("bounds of a string")
    if type_ == "integer" and not {"minimum", "maximum", "format"} <= part.keys():
        faults.append("bounds of an integer")
    if not all(rule.get("message") for rule in part.get("x-kubernetes-validations", [])):
        faults.append("a rule without a message")
    return faults


def test_nothing_that_checkers_report() -> None:
    assert [(path, faults) for path, part in _all_parts() if (faults := _faults(part))] == []


@pytest.mark.parametrize(
    "part",
    [
        {"type": "boolean"},
        {"type": "number"},
        {"type": "object", "additionalProperties": {"type": "string"}},
        {"type": "object"},
        {"type": "array", "items": {}, "maxItems": 3},
        {"type": "string"},
        {"type": "integer", "minimum": 0, "format": "int32"},
        {"type": "integer", "minimum": 0, "maximum": 1, "format": "uint32"},
        {"type": "object", "properties": {"a": {}}, "x-kubernetes-validations": [{"rule": "true"}]},
    ],
)
def test_the_check_itself_sees_each_fault(part: Schema) -> None:
    assert _faults(part)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_conditions_are_those_of_metav1(kind: Kind) -> None:
    conditions = crd.schema(kind)["properties"]["status"]["properties"]["conditions"]
    assert (conditions["x-kubernetes-list-type"], conditions["x-kubernetes-list-map-keys"]) == ("map", ["type"])
    fields = conditions["items"]["properties"]
    assert fields["type"]["maxLength"] == 316
    assert fields["type"]["pattern"] == (
        r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
        r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$"
    )
    assert (fields["reason"]["maxLength"], fields["reason"]["pattern"]) == (
        1024,
        "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
    )
    assert fields["message"]["maxLength"] == 32768
    assert fields["observedGeneration"]["minimum"] == 0
    assert (fields["lastTransitionTime"]["type"], fields["lastTransitionTime"]["format"]) == ("string", "date-time")
    assert set(fields["status"]["enum"]) == {"True", "False", "Unknown"}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_status_is_a_subresource_and_unseen_by_default(kind: Kind) -> None:
    version = crd.crd(kind)["spec"]["versions"][0]
    assert version["subresources"]["status"] == {}
    assert version["schema"]["openAPIV3Schema"]["properties"]["status"]["default"] == {"observedGeneration": -1}


def test_every_field_is_described() -> None:
    undescribed = [path for path, part in _all_parts() if not part.get("description") and not path.endswith("[]")]
    assert undescribed == []


def test_only_the_users_words_are_camel_case() -> None:
    """Closed word lists are CamelCase; the derived `state` words are REST's, and free of meaning to code."""
    odd = {
        word
        for path, part in _all_parts()
        for word in part.get("enum", [])
        if not path.endswith((".state", "[].state", ".outcome.state")) and not (word[0].isupper() and word.isalnum())
    }
    assert odd == set()


@pytest.mark.parametrize("words", [conditions.Type, conditions.Reason])
def test_every_condition_type_and_reason_has_a_sentence_in_the_documentation(words: type[StrEnum]) -> None:
    page = docs.render()
    assert [word for word in words if not re.search(rf"^- `{word.value}`: [A-Z`].{{9,}}\.$", page, re.MULTILINE)] == []


def test_every_field_stands_in_the_documentation() -> None:
    page = docs.render()
    for kind in KINDS:
        for part in ("spec", "status"):
            section = page.split(f"### {kind.name} {part}\n")[1].split("\n#")[0]
            paths = [
                path for path, _ in _parts(crd.schema(kind)["properties"][part]) if not path.startswith(".conditions[")
            ]
            named = {path.removeprefix(".") for path in paths if path and not path.endswith("[]")}
            assert named == set(re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE))
