"""/docs: the OpenAPI document as one HTML page. Nothing is fetched from anywhere and no script runs."""

from __future__ import annotations

import json
from html import escape
from typing import Any

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
details{border:1px solid #d0d7de;border-radius:6px;margin:.5rem 0;padding:.4rem .8rem}summary{cursor:pointer}
code,pre{font:13px/1.5 ui-monospace,monospace}pre{overflow:auto;background:#f6f8fa;padding:.8rem;border-radius:6px}
.m{display:inline-block;min-width:4.2rem;font-weight:700}td{padding:.1rem 1rem .1rem 0;vertical-align:top}
@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}details{border-color:#30363d}pre{background:#161b22}}
"""


def page(document: dict[str, Any]) -> str:
    """The page."""
    info = document["info"]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>{escape(info['title'])}</title><style>{_STYLE}</style>",
        f"<h1>{escape(info['title'])}</h1><p>{escape(info['description'])}</p>",
        "<p>As a document: <a href=openapi.json>openapi.json</a></p><h2>Routes</h2>",
    ]
    for path, methods in document["paths"].items():
        parts += [_operation(path, method, operation) for method, operation in methods.items()]
    parts.append("<h2>Bodies</h2>")
    parts += [_schema(name, schema) for name, schema in sorted(document["components"]["schemas"].items())]
    return "\n".join(parts)


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{escape(p['in'])}<td><code>{escape(p['name'])}</code><td>{escape(p['schema'].get('description', ''))}"
        for p in operation["parameters"]
    )
    body = operation.get("requestBody")
    if body:
        rows += f"<tr><td>body<td>{_link(body['content']['application/json']['schema'])}<td>"
    codes = "".join(
        f"<tr><td>{code}<td>{_link(reply['content']['application/json']['schema'])}<td>{escape(reply['description'])}"
        for code, reply in operation["responses"].items()
    )
    return (
        f"<details><summary><span class=m>{method.upper()}</span> <code>{escape(path)}</code> {escape(operation['summary'])}"
        f"</summary><table>{rows}</table><table>{codes}</table></details>"
    )


def _link(schema: dict[str, Any]) -> str:
    name = schema["$ref"].rpartition("/")[2]
    return f'<a href="#{escape(name)}">{escape(name)}</a>'


def _schema(name: str, schema: dict[str, Any]) -> str:
    text = escape(json.dumps(schema, indent=2))
    return f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary><pre>{text}</pre></details>'
