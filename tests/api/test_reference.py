"""The reference at /docs: all of the API on one page, with nothing from elsewhere."""

from __future__ import annotations

import re
from html import unescape

import httpx
import pytest

from server.api.reference import page_of


@pytest.fixture
def page(client: httpx.Client) -> str:
    return client.get("/docs").text


def test_it_may_load_nothing_from_elsewhere(client: httpx.Client, page: str) -> None:
    answer = client.get("/docs")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    [policy] = answer.headers.get_list("content-security-policy")
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    loaded = re.findall(r'<(?:link|script|img|use)[^>]* (?:src|href)="([^"]+)', page)
    assert loaded
    assert all(address.startswith("/") for address in loaded)
    assert [a for a in loaded if client.get(a).status_code != 200] == []


def test_every_operation_and_every_model_is_on_it(client: httpx.Client, page: str) -> None:
    document = client.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert f"<b>{method.upper()}</b> {path} " in page
            assert f'id="{operation["operationId"]}"' in page
    for name, schema in document["components"]["schemas"].items():
        assert f'id="{name}"' in page
        for field in schema.get("properties", {}):
            assert re.search(rf"<dt>{re.escape(field)}( \(needed\))?</dt>", page)


def test_every_link_leads_somewhere(page: str) -> None:
    places = re.findall(r' id="([^"]+)"', page)
    assert len(places) == len(set(places))
    assert [name for name in re.findall(r'href="#([^"]+)"', page) if name not in places] == []


def test_words_are_words() -> None:
    hostile = "<script>alert(1)</script> & `<b>`"
    operation = {
        "operationId": "look",
        "tags": ["things"],
        "summary": hostile,
        "description": hostile,
        "parameters": [{"name": hostile, "in": "query", "description": hostile}],
        "responses": {
            "200": {
                "description": hostile,
                "content": {"text/plain": {"example": hostile, "schema": {"enum": [hostile]}}},
            }
        },
    }
    document = {
        "info": {"description": hostile},
        "tags": [{"name": "things", "description": hostile}],
        "paths": {"/things": {"get": operation}},
        "components": {"schemas": {"Thing": {"description": hostile, "enum": [hostile]}}},
    }
    page = page_of(document)
    assert "<script>alert" not in page
    assert "<code>&lt;b&gt;</code>" in page
    assert unescape(page).count("<script>alert(1)</script>") >= 9
