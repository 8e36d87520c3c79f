"""The description of bodies that handlers read by hand: FastAPI cannot tell these from a signature."""

from typing import Any

from service.transports.schemas import Strict


def json_body(kind: type[Strict]) -> dict[str, Any]:
    """OpenAPI of a JSON body that is read by hand, so that its limits hold before it is parsed."""
    schema = kind.model_json_schema()
    schema = _inlined(schema, schema.pop("$defs", {}))
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def any_body(kind: type[Strict], *, raw: bool = False) -> dict[str, Any]:
    """OpenAPI of a body that is JSON or multipart, or raw image bytes."""
    described = json_body(kind)
    content: dict[str, Any] = described["requestBody"]["content"]
    file = {"type": "string", "format": "binary"}
    fields = {"image": file} if raw else {"image": file, "request": {"type": "string", "description": "the JSON"}}
    content["multipart/form-data"] = {"schema": {"type": "object", "properties": fields, "required": list(fields)}}
    if raw:
        content["application/octet-stream"] = {"schema": file}
        content["image/*"] = {"schema": file}
    return described


def _inlined(node: Any, definitions: dict[str, Any]) -> Any:
    """A schema with what it refers to put in place: the document's components hold only what FastAPI has found."""
    if isinstance(node, list):
        return [_inlined(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    rest = {key: _inlined(value, definitions) for key, value in node.items() if key != "$ref"}
    if "$ref" not in node:
        return rest
    name = node["$ref"].removeprefix("#/$defs/")
    return {**_inlined(definitions[name], definitions), **rest}
