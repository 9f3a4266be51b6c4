"""The OpenRPC 1.3 document of the control socket, made from the table of methods (spec.open-rpc.org).

Nothing here is written by hand twice: parameters, results and their schemas come from the types in the table.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import msgspec

from microtorrd import __version__
from microtorrd.proto.jsonrpc import ERROR_CODES, INTERNAL_ERROR, INVALID_PARAMS, MAX_LINE_BYTES

if TYPE_CHECKING:
    from microtorrd.rpc.methods import Method

_SCHEMAS = "#/components/schemas/{name}"


def describe(methods: Collection[Method]) -> dict[str, Any]:
    """The document for these methods."""
    results = [method.result for method in methods]
    result_schemas, schemas = msgspec.json.schema_components(results, ref_template=_SCHEMAS)
    return {
        "openrpc": "1.3.2",
        "info": {
            "title": "microtorrd control socket",
            "version": __version__,
            "description": (
                "JSON-RPC 2.0 over a Unix stream socket: one JSON value a line, parameters by name, "
                f"batches and notifications as the standard says. A line has at most {MAX_LINE_BYTES} bytes. "
                "Sizes are bytes, rates bytes a second, times RFC 3339, binary values base64, ids lower-case "
                "hexadecimal text."
            ),
            "license": {"name": "MIT"},
        },
        "methods": [
            _describe_method(method, schema) for method, schema in zip(methods, result_schemas, strict=True)
        ],
        "components": {
            "schemas": schemas,
            "errors": {error.name: {"code": error.code, "message": error.meaning} for error in ERROR_CODES},
        },
    }


def _describe_method(method: Method, result: dict[str, Any]) -> dict[str, Any]:
    _, components = msgspec.json.schema_components([method.params], ref_template=_SCHEMAS)
    schema = components[method.params.__name__]
    required = set(schema["required"])
    codes = [INVALID_PARAMS, *(error.code for error in method.errors), INTERNAL_ERROR]
    names = {error.code: error.name for error in ERROR_CODES}
    return {
        "name": method.name,
        "summary": method.summary,
        "tags": [{"name": "changes" if method.changes else "reads"}],
        "paramStructure": "by-name",
        "params": [
            {
                "name": name,
                "summary": part.get("description", ""),
                "required": name in required,
                "schema": part,
            }
            for name, part in sorted(schema["properties"].items(), key=lambda item: item[0] not in required)
        ],
        "result": {"name": f"{method.name}.result", "schema": result},
        "errors": [{"$ref": f"#/components/errors/{names[code]}"} for code in codes],
    }
