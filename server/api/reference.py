"""The reference at `/docs`: the OpenAPI document as a page that is made here.

Knows OpenAPI and HTML. It loads nothing from elsewhere: it is there without the internet, and no
script of others runs where the pages keep their key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from html import escape
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, Response

from server.api.pages import FOLDER, POLICY

PATH = "/docs"
Document = Mapping[str, Any]
Rows = Iterable[tuple[str, str]]


def add_reference(app: FastAPI) -> None:
    """Answer `/docs`, to everybody."""

    @cache
    def page() -> str:
        return page_of(app.openapi())

    async def reference(_: Request) -> Response:
        return HTMLResponse(page(), headers={"Content-Security-Policy": POLICY})

    app.add_route(PATH, reference, methods=["GET"])


def page_of(document: Document) -> str:
    """The whole page; the frame is that of the status page."""
    frame = (FOLDER / "status.html").read_text()
    top = frame[frame.index('<header class="top">') : frame.index("<noscript>")]
    top = top.replace(' aria-current="page"', "")
    top = top.replace(f'href="{PATH}"', f'href="{PATH}" aria-current="page"')
    head = frame[: frame.index('<link rel="modulepreload"')]
    head = re.sub(r"<title>.*?</title>", "<title>API · Darkroom</title>", head)
    head = re.sub(r'content="Queues[^"]*"', 'content="The HTTP API of this Darkroom."', head)
    theme = '<script type="module" src="/playground/theme.js" blocking="render"></script>'
    return f"{head}{theme}\n</head>\n<body>\n{top}{_main(document)}</body>\n</html>\n"


def _main(document: Document) -> str:
    told = _paragraphs(document["info"]["description"])
    whole = '<p>For programs: <a href="/openapi.json">openapi.json</a>.</p>'
    parts = [*_groups(document), *_models(document["components"]["schemas"])]
    return f'<main class="board">\n<h1>API</h1>\n{told}{whole}\n{"".join(parts)}</main>\n'


def _groups(document: Document) -> Iterator[str]:
    operations = [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    for tag in document["tags"]:
        name = tag["name"]
        yield f"<h2>{escape(name)}</h2>\n{_paragraphs(tag['description'])}"
        yield from (_operation(*each) for each in operations if name in each[2]["tags"])


def _operation(method: str, path: str, operation: Document) -> str:
    parameters = (
        (f"{one['name']}, in {one['in']}", _told(one.get("description", ""), one.get("schema", {})))
        for one in operation.get("parameters", ())
    )
    answers = (
        (status, _paragraphs(answer["description"]) + _contents(answer, status.startswith("2")))
        for status, answer in operation["responses"].items()
    )
    heading = f"<b>{method.upper()}</b> {escape(path)}"
    summary = f'<summary>{heading} <span class="hint">{_words(operation["summary"])}</span>'
    return (
        f'<details class="queue" id="{escape(operation["operationId"])}">{summary}</summary>\n'
        + _paragraphs(operation.get("description", ""))
        + _list("Parameters", parameters)
        + _list("Body", [("sent as", _contents(operation.get("requestBody", {})))])
        + _list("Answers", answers)
        + "</details>\n"
    )


def _contents(said: Document, shown: bool = True) -> str:
    """Errors are much the same everywhere; an example of each would hide the rest."""
    return "".join(
        f"<p>{escape(kind)} {_type(content.get('schema', {}))}</p>\n"
        f"{_examples(content) if shown else ''}"
        for kind, content in said.get("content", {}).items()
    )


def _examples(content: Document) -> str:
    one = [{"value": content["example"]}] if "example" in content else []
    shown = [*one, *content.get("examples", {}).values()]
    return "".join(
        f'<pre tabindex="0">{escape(_pretty(example["value"]))}</pre>\n' for example in shown
    )


def _models(schemas: Document) -> Iterator[str]:
    yield "<h2>What is sent and answered</h2>\n"
    for name, schema in schemas.items():
        needed = set(schema.get("required", ()))
        fields = (
            (
                field + (" (needed)" if field in needed else ""),
                _told(about.get("description"), about),
            )
            for field, about in schema.get("properties", {}).items()
        )
        values = ", ".join(map(str, schema.get("enum", ())))
        yield (
            f'<details class="queue" id="{escape(name)}"><summary>{escape(name)}</summary>\n'
            f"{_paragraphs(schema.get('description', ''))}{_paragraphs(values)}"
            f"{_list('Fields', fields)}</details>\n"
        )


def _told(description: str | None, schema: Document) -> str:
    return f'<span class="hint">{_type(schema)}</span> {_words(description or "")}'


def _type(schema: Document) -> str:
    """In a word or two; what has a name is linked to."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices:
        return " or ".join(_type(choice) for choice in choices)
    if "items" in schema:
        return f"list of {_type(schema['items'])}"
    if "enum" in schema or "const" in schema:
        return escape(", ".join(map(str, schema.get("enum", [schema.get("const")]))))
    return escape(str(schema.get("type", "")))


def _list(title: str, rows: Rows) -> str:
    told = "".join(f"<dt>{escape(name)}</dt><dd>{text}</dd>\n" for name, text in rows if text)
    return f"<h3>{title}</h3>\n<dl>{told}</dl>\n" if told else ""


def _pretty(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{_words(part)}</p>\n" for part in text.split("\n\n") if part.strip())


def _words(text: str) -> str:
    """With what stands in backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text.strip()))
