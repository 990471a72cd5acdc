"""The document says all that can be sent and answered, with examples that are true."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from server.api.examples import REQUESTS
from server.api.handlers import every_error
from server.catalog import load_catalog
from server.errors import DarkroomError
from tests.api.house import Hands
from tests.api.pictures import picture

Document = dict[str, Any]
PAGE = Path(__file__).parents[2] / "docs" / "api.md"


@pytest.fixture
def document(client: httpx.Client) -> Document:
    found: Document = client.get("/openapi.json").json()
    return found


def models() -> dict[str, type[BaseModel]]:
    found, rest = {}, [BaseModel]
    while rest:
        model = rest.pop()
        rest += model.__subclasses__()
        found |= {model.__name__: model} if model.__module__.startswith("server.api") else {}
    return found


def operations(document: Document) -> Iterator[tuple[str, Document]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def examples(document: Document) -> Iterator[tuple[str, Document, Any]]:
    """Every example beside a schema: where, the schema, the example."""
    for name, operation in operations(document):
        answers = [*operation["responses"].items(), ("body", operation.get("requestBody", {}))]
        for status, answer in answers:
            for kind, content in answer.get("content", {}).items():
                given = [e["value"] for e in content.get("examples", {}).values()]
                given += [content["example"]] if "example" in content else []
                assert given, f"{name} {status} {kind} has no example"
                for example in given:
                    yield f"{name} {status}", content.get("schema", {"type": "string"}), example


def test_every_operation_is_described(document: Document) -> None:
    ids = [operation["operationId"] for _, operation in operations(document)]
    assert len(set(ids)) == len(ids)
    for name, operation in operations(document):
        assert operation["summary"], name
        assert operation["description"], name
        assert operation["tags"], name
        assert "500" in operation["responses"], name
        for status, answer in operation["responses"].items():
            assert answer["description"], (name, status)


def test_every_parameter_and_field_is_described(document: Document) -> None:
    for name, operation in operations(document):
        for parameter in operation.get("parameters", []):
            assert parameter.get("description"), (name, parameter["name"])
    for field, schema in document["components"]["schemas"]["GenerationRequest"][
        "properties"
    ].items():
        assert schema.get("description"), field


def test_every_example_is_true_to_its_schema(document: Document) -> None:
    found = list(examples(document))
    assert len(found) > 60
    for where, schema, example in found:
        if schema.get("type") == "string":
            assert isinstance(example, str), where
            continue
        if "$ref" not in schema:  # a form: the request is one part of it, or each field is one
            assert set(example) <= set(schema["properties"]), where
            if "request" not in schema["properties"]:
                continue
            schema, example = schema["properties"]["request"], example["request"]
        name = schema["$ref"].rpartition("/")[2]
        models()[name].model_validate_json(json.dumps(example))
        known = document["components"]["schemas"][name]
        if "properties" in known and not known.get("additionalProperties"):  # no list and no null
            assert set(example) <= set(known["properties"]), where


def test_every_reference_leads_somewhere(document: Document) -> None:
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}

    def references(part: Any) -> Iterator[str]:
        if isinstance(part, dict):
            if isinstance(part.get("$ref"), str):
                yield part["$ref"]
            for value in part.values():
                yield from references(value)
        elif isinstance(part, list):
            for value in part:
                yield from references(value)

    assert set(references(document)) <= known
    assert "HTTPValidationError" not in str(document)


def test_the_pages_have_every_operation(document: Document) -> None:
    pages = "".join(page.read_text() for page in PAGE.parent.glob("*.md"))
    assert [name for name, _ in operations(document) if f"`{name}`" not in pages] == []


def test_the_page_has_every_error_code() -> None:
    page = PAGE.read_text()
    codes = {error.code: error.status for error in every_error(DarkroomError)}
    assert [code for code, status in codes.items() if f"| `{code}` | {status} |" not in page] == []


def test_the_page_has_every_field_of_a_request(document: Document) -> None:
    page = PAGE.read_text()
    fields = document["components"]["schemas"]["GenerationRequest"]["properties"]
    assert [field for field in fields if f"`{field}`" not in page] == []


@pytest.mark.parametrize("name", REQUESTS)
def test_every_example_of_a_request_is_accepted(
    client: httpx.Client, hands: Hands, name: str
) -> None:
    for checkpoint in load_catalog():
        hands.serve(checkpoint, name=f"hands of {checkpoint}")
    answer = client.post("/v1/generations", json=REQUESTS[name])
    assert answer.status_code == 202, answer.text
    assert answer.json()["warnings"] == []
    assert client.delete(answer.json()["urls"]["self"]).status_code == 204


def test_every_body_on_the_page_is_accepted(client: httpx.Client, hands: Hands) -> None:
    for checkpoint in load_catalog():
        hands.serve(checkpoint, name=f"hands of {checkpoint}")
    page = PAGE.read_text()
    bodies = re.findall(r"-d '(\{.*?\})'(?! \\\n  http://[^ ]*tokenize)", page, re.DOTALL)
    assert len(bodies) >= 5
    for body in bodies:
        assert client.post("/v1/generations", json=json.loads(body)).status_code == 202, body
    [part] = re.findall(r"-F 'request=(\{.*?\});type", page)
    files = {"request": (None, part), "image": ("photo.png", picture())}
    assert client.post("/v1/generations", files=files).status_code == 202


def test_the_record_shows_no_key_of_the_store(document: Document) -> None:
    shown = document["components"]["schemas"]["PictureRecord"]["properties"]
    assert set(shown) == {"sha256", "width", "height"}
    assert "Upload" not in document["components"]["schemas"]


def test_the_page_has_every_field_of_the_parts_of_a_request(document: Document) -> None:
    page, schemas = PAGE.read_text(), document["components"]["schemas"]
    for part in ("Hires", "Refiner", "Upscaler"):
        for field, schema in schemas[f"{part}Request"]["properties"].items():
            assert f"`{part.lower()}.{field}`" in page
            assert schema["description"], (part, field)
    for field in schemas["SweepRequest"]["properties"]:
        assert f"`{field}`" in page


def test_the_queue_is_said_to_be_first_come_first_served(document: Document) -> None:
    asked = document["components"]["schemas"]["GenerationRequest"]["properties"]["priority"]
    assert "first come, first served" in asked["description"]
    assert "first come, first served" in PAGE.read_text()


def test_an_unknown_outcome_is_told(document: Document) -> None:
    operation = document["paths"]["/v1/generations"]["post"]
    examples = operation["responses"]["503"]["content"]["application/problem+json"]["examples"]
    told = [operation["description"], examples["broker_unavailable"]["summary"], PAGE.read_text()]
    assert ["unknown" in text for text in told] == [True] * 3


def test_the_examples_ask_for_what_the_demo_can_draw(document: Document) -> None:
    assert "square" not in json.dumps(document) + PAGE.read_text()


@pytest.mark.parametrize(
    "code",
    [
        "eta_ignored",
        "negative_prompt_ignored",
        "guidance_rescale_ignored",
        "prompt_2_ignored",
        "refiner_strength_ignored",
        "size_adjusted",
        "prompt_and_ignored",
        "prompt_lora_ignored",
        "prompt_emphasis_ignored",
        "nothing_repainted",
        "prompt_chunked",
        "nsfw_blurred",
        "decoded_in_float32",
        "blank_picture",
        "prompt_truncated",
    ],
)
def test_every_warning_is_on_the_page(code: str) -> None:
    assert f"\n| `{code}`" in PAGE.read_text()
