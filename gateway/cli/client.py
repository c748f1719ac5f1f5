"""`hearth client`: write the typed Python client from the API's own description (OpenAPI 3.1)."""

from __future__ import annotations

import builtins
import keyword
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import typer

from api.access import Principal
from api.app import create_app
from api.archive import Archive
from api.auth import RefusedTokenError
from gateway.cli.stages import require_checkout
from gateway.platform.postgres import AsyncConnectionPool
from gateway.platform.settings import CHECKOUT

FOLDER = CHECKOUT / "hearth_client"
"""Where documents.py and operations.py are written; what lies beside them is by hand."""
PATHS = ("/api/", "/healthz", "/readyz", "/metrics")
"""What the client speaks to: FHIR and OpenID Connect have clients of their own."""

app = typer.Typer(help="Python 客户端 / the Python client.")

Schema = Mapping[str, Any]


class _Nobody:
    """Takes no token: the description is made without a request."""

    async def principal(self, token: str) -> Principal:  # noqa: ARG002 - whatever it is
        raise RefusedTokenError("none")


_DOCUMENTS = '''"""What the API says, as types. Made by `hearth client`; a test keeps it up to date."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict
'''
_OPERATIONS = '''"""Every operation of the API as a method. Made by `hearth client`; a test keeps it up to date."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from hearth_client.documents import (
    {names},
)
from hearth_client.transport import Event, Transport, path_segment


class Client(Transport):
    """The API of one address, with one token."""
'''
_PLAIN = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}
_JSON, _STREAM = "application/json", "text/event-stream"


@app.command()
def client() -> None:
    """由接口描述生成客户端 / write the client from the API's description (in a checkout)."""
    require_checkout()
    for name, source in client_sources(description()).items():
        (FOLDER / name).write_text(source, encoding="utf-8")
        typer.echo(f"{FOLDER.name}/{name}", err=True)


def description() -> dict[str, Any]:
    """Return the API's description; it needs no database."""
    nothing = Archive(AsyncConnectionPool(open=False))
    described: dict[str, Any] = create_app(nothing, _Nobody()).openapi()
    return described


def client_sources(described: Mapping[str, Any]) -> dict[str, str]:
    """Return the modules that speak to an API so described, by their names."""
    methods = [
        line
        for path, operations in described["paths"].items()
        if path.startswith(PATHS)
        for method, operation in operations.items()
        for line in _method(path, method, operation)
    ]
    schemas = described["components"]["schemas"]
    spoken = {name for name in schemas if re.search(rf"\b{_class(name)}\b", "\n".join(methods))}
    needed = _with_parts(spoken, schemas)
    types = [
        line for name in schemas if name in needed for line in _typed_dict(name, schemas[name])
    ]
    names = ",\n    ".join(sorted(_class(name) for name in spoken))
    return {
        "documents.py": formatted("\n".join([_DOCUMENTS, *types]) + "\n"),
        "operations.py": formatted("\n".join([_OPERATIONS.format(names=names), *methods]) + "\n"),
    }


def _with_parts(names: set[str], schemas: Mapping[str, Schema]) -> set[str]:
    """Return the schemas and all that they are made of."""
    found: set[str] = set()
    waiting = set(names)
    while waiting:
        name = waiting.pop()
        found.add(name)
        parts = re.findall(r"#/components/schemas/([^'\"]+)", str(schemas[name]))
        waiting |= set(parts) - found
    return found


def formatted(source: str) -> str:
    """Return a module as ruff would have it, without the imports that nothing uses."""
    for words in (("check", "--fix", "--select", "F401,I", "--quiet"), ("format",)):
        source = subprocess.run(  # noqa: S603 - our own tool
            [sys.executable, "-m", "ruff", *words, "--stdin-filename", str(FOLDER / "x.py"), "-"],
            input=source,
            capture_output=True,
            text=True,
            check=True,
            cwd=CHECKOUT,
        ).stdout
    return source


def _typed_dict(name: str, schema: Schema) -> Iterator[str]:
    yield "\n"
    if "enum" in schema:
        yield f"{_class(name)} = {_type(schema)}"
        return
    yield f"class {_class(name)}(TypedDict):"
    yield f"    {_docstring(schema.get('description', name))}"
    yield ""
    required = schema.get("required", ())
    for field, inner in schema.get("properties", {}).items():
        kind = _type(inner)
        yield f"    {field}: {kind if field in required else f'NotRequired[{kind}]'}"


def _method(path: str, method: str, operation: Schema) -> Iterator[str]:
    parameters = operation.get("parameters", ())
    in_path = [p["name"] for p in parameters if p["in"] == "path"]
    others = [p for p in parameters if p["in"] != "path"]
    body = operation.get("requestBody", {}).get("content", {}).get(_JSON, {}).get("schema")
    content = _content(operation["responses"])
    signature = ["self", *(f"{_python(name)}: str" for name in in_path)]
    if body is not None:
        signature.append(f"body: {_type(body)}")
    if others or body is not None:
        signature.append("*")
    signature += sorted((_argument(p) for p in others), key=lambda text: "=" in text)
    if signature[-1] == "*":
        signature.pop()
    yield ""
    yield f"    def {operation['operationId']}({', '.join(signature)}) -> {_result(content)}:"
    yield f"        {_docstring(operation.get('description') or operation['summary'])}"
    target = re.sub(r"\{(\w+)\}", lambda found: f"{{path_segment({_python(found[1])})}}", path)
    arguments = [f'"{method.upper()}"', f'f"{target}"' if in_path else f'"{path}"']
    for place, keyword_ in (("query", "params"), ("header", "headers")):
        chosen = [f'"{p["name"]}": {_python(p["name"])}' for p in others if p["in"] == place]
        if chosen:
            arguments.append(f"{keyword_}={{{', '.join(chosen)}}}")
    if body is not None:
        arguments.append("body=body")
    yield f"        return self.{_call(content)}({', '.join(arguments)})"


def _content(responses: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what an operation answers when it succeeds; nothing where that is 204."""
    success: Mapping[str, Any] = next(
        response for status, response in responses.items() if status.startswith("2")
    )
    content: Mapping[str, Any] = success.get("content", {})
    return content


def _argument(parameter: Schema) -> str:
    kind = _type(parameter["schema"])
    if parameter.get("required"):
        return f"{_python(parameter['name'])}: {kind}"
    kind = kind if "None" in kind.split(" | ") else f"{kind} | None"
    return f"{_python(parameter['name'])}: {kind} = None"


def _result(content: Mapping[str, Any]) -> str:
    if _STREAM in content:
        return "Iterator[Event]"
    return _type(content[_JSON]["schema"]) if _JSON in content else "bytes"


def _call(content: Mapping[str, Any]) -> str:
    if _STREAM in content:
        return "events"
    return "json" if _JSON in content else "content"


def _type(schema: Schema) -> str:  # noqa: PLR0911 - a case a kind of schema
    match schema:
        case {"$ref": reference}:
            return _class(reference.rpartition("/")[2])
        case {"enum": values}:
            return f"Literal[{', '.join(map(repr, values))}]"
        case {"const": value}:
            return f"Literal[{value!r}]"
        case {"anyOf": choices} | {"oneOf": choices}:
            return " | ".join(dict.fromkeys(map(_type, choices)))
        case {"type": "array", **rest}:
            items = rest.get("items")
            return f"list[{_type(items) if items else 'Any'}]"
        case {"type": "object", "additionalProperties": dict() as values}:
            return f"dict[str, {_type(values)}]"
        case {"type": "object"}:
            return "dict[str, Any]"
        case {"type": str() as plain}:
            return _PLAIN[plain]
        case _:
            return "Any"


def _class(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in re.split(r"\W|_", name))


def _python(name: str) -> str:
    name = re.sub(r"\W", "_", name.lower())
    return f"{name}_" if keyword.iskeyword(name) or name in dir(builtins) else name


def _docstring(text: str) -> str:
    first = text.strip().partition("\n\n")[0].replace("\n", " ").replace('"', "'")
    return f'"""{first}{"" if first.endswith((".", "?")) else "."}"""'
