"""The Open Inference Protocol, version 2: tensors in HTTP bodies, as JSON or as bytes after it.

References
----------
KServe, Open Inference Protocol V2 (HTTP/REST), and its binary tensor data extension.
"""

import json
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

LENGTH = "Inference-Header-Content-Length"
TYPES: dict[str, np.dtype[Any]] = {
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
}
Part = Literal["inputs", "outputs"]


class ProtocolError(ValueError):
    """A body is not what the protocol says; the message names the place."""


def encode(
    fields: Mapping[str, Any], part: Part, tensors: Mapping[str, npt.NDArray[Any]], *, binary: bool
) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of a request or an answer.

    Parameters
    ----------
    fields : Mapping
        What else stands in the JSON object.
    part : {"inputs", "outputs"}
        Which of the two it is.
    tensors : Mapping
        Arrays by name, of a type in `TYPES`.
    binary : bool
        Whether numbers stand as bytes after the object instead of in it; JSON writes NaN as
        ``NaN``.
    """
    entries: list[dict[str, Any]] = []
    tail = []
    for name, values in tensors.items():
        datatype = _name(values)
        entry: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(values.shape)}
        if binary:
            tail.append(np.ascontiguousarray(values, dtype=TYPES[datatype]).tobytes())
            entry["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            entry["data"] = values.reshape(-1).tolist()
        entries.append(entry)
    head = json.dumps({**fields, part: entries}).encode()
    if not binary:
        return head, {"Content-Type": "application/json"}
    headers = {"Content-Type": "application/octet-stream", LENGTH: str(len(head))}
    return b"".join([head, *tail]), headers


def decode(
    body: bytes, headers: Mapping[str, str], part: Part
) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Return the JSON object of a body and its tensors by name; null among numbers is NaN.

    Raises
    ------
    ProtocolError
        If it is not of the protocol.
    """
    length = headers.get(LENGTH)
    if length is not None and not (length.isdigit() and int(length) <= len(body)):
        raise ProtocolError(f"{LENGTH} is {length} of a body of {len(body)} bytes")
    end = len(body) if length is None else int(length)
    try:
        fields = json.loads(body[:end])
    except ValueError as error:
        raise ProtocolError(f"the body is no JSON: {error}") from error
    if not isinstance(fields, dict) or not isinstance(fields.get(part), list):
        raise ProtocolError(f"the body has no list of {part}")
    tensors = {}
    rest = memoryview(body)[end:]
    for entry in fields[part]:
        name, values, used = _tensor(entry, rest, part)
        tensors[name] = values
        rest = rest[used:]
    return fields, tensors


def _tensor(entry: object, rest: memoryview, part: Part) -> tuple[str, npt.NDArray[Any], int]:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise ProtocolError(f"one of {part} has no name")
    name, shape, datatype = entry["name"], entry.get("shape"), entry.get("datatype")
    if datatype not in TYPES:
        raise ProtocolError(f"{name}: datatype is {datatype!r}, expected one of {', '.join(TYPES)}")
    if not isinstance(shape, list) or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise ProtocolError(f"{name}: shape is {shape!r}, expected whole numbers")
    size = (entry.get("parameters") or {}).get("binary_data_size")
    dtype = TYPES[datatype]
    try:
        if size is None:
            # By way of double, where null is NaN.
            wide = dtype if dtype.kind == "i" else np.float64
            flat = np.asarray(entry.get("data"), dtype=wide).astype(dtype).reshape(shape)
            return name, flat, 0
        if not isinstance(size, int) or not 0 <= size <= len(rest):
            raise ProtocolError(f"{name}: {size} bytes are announced, {len(rest)} follow")
        return name, np.frombuffer(rest[:size], dtype=dtype).reshape(shape), size
    except (TypeError, ValueError) as error:
        raise ProtocolError(f"{name}: {error}") from error


def _name(values: npt.NDArray[Any]) -> str:
    for name, dtype in TYPES.items():
        if values.dtype == dtype:
            return name
    raise ProtocolError(f"no datatype for {values.dtype}")
