"""The form in which variables travel between notebook and sandbox. The same file runs on both sides.

JSON for the structure, raw bytes for what is large; nothing is ever unpickled, and what comes in is checked before
memory is taken for it. The sandbox gets this file as source text, so it needs nothing but Python 3.9 and its standard
library; numpy, pandas and pyarrow are imported when a value is of theirs.
"""

from __future__ import annotations

import io
import json
import math
import struct
from collections.abc import Callable, Mapping
from typing import Any

LIMIT = 64 * 1024 * 1024
"""Bytes of all variables of one cell."""

MAX_DEPTH = 50
MAX_ROWS = LIMIT
_TAG = "$"
_HEAD = struct.Struct("<4sQ")
_MAGIC = b"jsb1"


class Refused(ValueError):
    """A value that may not pass. The text names the type and the rule."""


def pack(variables: Mapping[str, Any]) -> bytes:
    """``variables`` (names to values) as bytes; raises :class:`Refused`, naming variable, type and rule."""
    blobs: list[bytes] = []
    tree: dict[str, Any] = {}
    for name, value in variables.items():
        try:
            tree[name] = _encode(value, blobs, 0)
        except Refused as exc:
            raise Refused(f"{name}: {exc}") from None
    head = json.dumps({"variables": tree, "sizes": [len(blob) for blob in blobs]}).encode()
    size = len(head) + sum(map(len, blobs))
    if size > LIMIT:
        raise Refused(f"{', '.join(variables)}: {size:,} bytes, more than the {LIMIT:,} that may pass")
    return b"".join([_HEAD.pack(_MAGIC, len(head)), head, *blobs])


def unpack(data: bytes) -> dict[str, Any]:
    """The variables that :func:`pack` wrote; raises :class:`Refused` for anything else. ``data`` is not trusted."""
    try:
        tree, blobs = _split(memoryview(data))
        return {str(name): _named(name, node, blobs) for name, node in tree.items()}
    except Refused:
        raise
    except Exception as exc:  # NumPy, pandas and pyarrow raise whatever they like at forged data; all mean the same.
        raise Refused(f"not in the form of variables: {exc}") from None


def _named(name: str, node: Any, blobs: list[memoryview]) -> Any:
    try:
        return _decode(node, blobs, 0)
    except Refused as exc:
        raise Refused(f"{name}: {exc}") from None


def _split(view: memoryview) -> tuple[dict[str, Any], list[memoryview]]:
    magic, length = _HEAD.unpack_from(view)
    if magic != _MAGIC or len(view) > LIMIT + _HEAD.size or length > len(view):
        raise Refused("not in the form of variables, or too large")
    head = json.loads(bytes(view[_HEAD.size : _HEAD.size + length]))
    blobs, start = [], _HEAD.size + length
    for size in head["sizes"]:
        if type(size) is not int or size < 0 or start + size > len(view):
            raise Refused("not in the form of variables: wrong sizes")
        blobs.append(view[start : start + size])
        start += size
    return head["variables"], blobs


# --- values to JSON ----------------------------------------------------------------------------------


def _encode(value: Any, blobs: list[bytes], depth: int) -> Any:
    kind = type(value)
    if depth > MAX_DEPTH:
        raise Refused(f"nested deeper than {MAX_DEPTH} levels")
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        return value if abs(value) < 2**53 else {_TAG: "int", "hex": hex(value)}
    if kind is float:
        return value if math.isfinite(value) else {_TAG: "float", "text": repr(value)}
    if kind is list:
        return [_encode(item, blobs, depth + 1) for item in value]
    if kind is dict:
        items = [[_encode(k, blobs, depth + 1), _encode(v, blobs, depth + 1)] for k, v in value.items()]
        return {_TAG: "dict", "items": items}
    return _encode_blob(value, kind, blobs)


def _encode_blob(value: Any, kind: type, blobs: list[bytes]) -> dict[str, Any]:
    name = f"{kind.__module__}.{kind.__qualname__}"
    if kind is bytes:
        tag, blob = "bytes", value
    elif name == "numpy.ndarray":
        tag, blob = "numpy", _from_array(value)
    elif name in ("pandas.core.frame.DataFrame", "pandas.DataFrame"):
        tag, blob = "arrow", _from_frame(value)
    else:
        raise Refused(f"type {name} does not pass")
    blobs.append(blob)
    return {_TAG: tag, "blob": len(blobs) - 1}


def _decode(node: Any, blobs: list[memoryview], depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise Refused(f"nested deeper than {MAX_DEPTH} levels")
    if isinstance(node, list):
        return [_decode(item, blobs, depth + 1) for item in node]
    if not isinstance(node, dict):
        return node
    tag = node[_TAG]
    if tag == "int":
        return int(str(node["hex"])[: 2 * LIMIT], 16)
    if tag == "float":
        return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[node["text"]]
    if tag == "dict":
        return {_decode(k, blobs, depth + 1): _decode(v, blobs, depth + 1) for k, v in node["items"]}
    number = node["blob"]
    if type(number) is not int or number < 0:
        raise Refused("not in the form of variables: wrong blob")
    readers: dict[str, Callable[[memoryview], Any]] = {"bytes": bytes, "numpy": _to_array, "arrow": _to_frame}
    return readers[tag](blobs[number])


# --- NumPy -------------------------------------------------------------------------------------------


def _from_array(value: Any) -> bytes:
    import numpy as np

    if value.dtype.hasobject:
        raise Refused(f"NumPy array of dtype {value.dtype} holds Python objects, which do not pass")
    if value.nbytes > LIMIT:
        raise Refused(f"NumPy array of {value.nbytes:,} bytes, more than the {LIMIT:,} that may pass")
    file = io.BytesIO()
    np.lib.format.write_array(file, value, allow_pickle=False)
    return file.getvalue()


def _to_array(blob: memoryview) -> Any:
    """Read the header first: what it claims must be exactly what is there."""
    np = _library("numpy")
    file = io.BytesIO(blob)
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise Refused(f"NumPy array in format {version}")
    shape, fortran_order, dtype = readers[version](file)
    count = math.prod(shape)
    if dtype.hasobject or dtype.itemsize == 0 or any(length < 0 for length in shape):
        raise Refused(f"NumPy array of dtype {dtype} does not pass")
    if count * dtype.itemsize != len(blob) - file.tell():
        raise Refused("NumPy array whose size is not what it says")
    flat = np.frombuffer(blob, dtype=dtype, count=count, offset=file.tell()) if count else np.empty(0, dtype)
    return flat.reshape(shape, order="F" if fortran_order else "C").copy(order="K")


# --- pandas ------------------------------------------------------------------------------------------


def _from_frame(value: Any) -> bytes:
    pa = _library("pyarrow")
    try:
        table = pa.Table.from_pandas(value)
    except (pa.ArrowException, TypeError, ValueError) as exc:
        raise Refused(f"pandas DataFrame that Arrow cannot hold: {exc}") from None
    table = _without_nulls(pa, table)
    _check_schema(pa, table.schema)
    file = io.BytesIO()
    with pa.ipc.new_stream(file, table.schema, options=pa.ipc.IpcWriteOptions(compression=None)) as writer:
        writer.write_table(table)
    return file.getvalue()


def _without_nulls(pa: Any, table: Any) -> Any:
    """Columns of nothing but None as text columns: the other side takes no type that claims rows without bytes."""
    for number, field in enumerate(table.schema):
        if pa.types.is_null(field.type):
            table = table.set_column(number, field.name, table.column(number).cast(pa.string()))
    return table


def _to_frame(blob: memoryview) -> Any:
    pa = _library("pyarrow")
    _library("pandas")
    _check_messages(pa, blob)
    try:
        with pa.ipc.open_stream(pa.py_buffer(blob)) as reader:
            _check_schema(pa, reader.schema)
            table = reader.read_all()
        if table.num_rows > MAX_ROWS:
            raise Refused(f"pandas DataFrame with {table.num_rows:,} rows")
        table.validate(full=True)
        return table.to_pandas()
    except (pa.ArrowException, OSError) as exc:
        raise Refused(f"pandas DataFrame that cannot be read: {exc}") from None


def _check_schema(pa: Any, schema: Any) -> None:
    for field in schema:
        if not _is_plain(pa, field.type) or (field.metadata and b"ARROW:extension:name" in field.metadata):
            raise Refused(f"pandas DataFrame with column {field.name!r} of type {field.type}, which does not pass")


def _is_plain(pa: Any, kind: Any, depth: int = 0) -> bool:
    """Whether the values of a type are bounded by the bytes that hold them, and need no code to be made."""
    types = pa.types
    if depth > 8:
        return False
    if types.is_dictionary(kind):
        return types.is_integer(kind.index_type) and _is_plain(pa, kind.value_type, depth + 1)
    if types.is_list(kind) or types.is_large_list(kind):
        return _is_plain(pa, kind.value_type, depth + 1)
    if types.is_struct(kind):
        return kind.num_fields > 0 and all(_is_plain(pa, kind.field(i).type, depth + 1) for i in range(kind.num_fields))
    if types.is_fixed_size_binary(kind) and not types.is_decimal(kind):
        return bool(kind.byte_width > 0)
    simple = (types.is_primitive, types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    return any(check(kind) for check in simple) or types.is_decimal(kind)


_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3


def _check_messages(pa: Any, blob: memoryview) -> None:
    """Refuse extension types and compression before pyarrow acts on them (both stand in each message's head)."""
    source = pa.BufferReader(pa.py_buffer(blob))
    while True:
        try:
            message = pa.ipc.read_message(source)
        except EOFError:
            return
        head = message.metadata.to_pybytes()
        if b"ARROW:extension" in head:
            raise Refused("pandas DataFrame with extension types, which do not pass")
        if _is_compressed(head):
            raise Refused("pandas DataFrame in compressed form, which does not pass")


def _is_compressed(head: bytes) -> bool:
    """Whether a record batch (or the one in a dictionary batch) names a compression: field 3 of its table."""
    (message,) = struct.unpack_from("<I", head, 0)
    kind_at, batch_at = _slot(head, message, 1), _slot(head, message, 2)
    kind = head[kind_at] if kind_at else 0
    if kind not in (_DICTIONARY, _BATCH) or not batch_at:
        return False
    batch = _follow(head, batch_at)
    if kind == _DICTIONARY:
        data_at = _slot(head, batch, 1)
        if not data_at:
            return False
        batch = _follow(head, data_at)
    return _slot(head, batch, 3) != 0


def _follow(head: bytes, position: int) -> int:
    (offset,) = struct.unpack_from("<I", head, position)
    return position + int(offset)


def _slot(head: bytes, table: int, number: int) -> int:
    """Where field ``number`` of a flatbuffer table lies; 0 if it is not given."""
    (back,) = struct.unpack_from("<i", head, table)
    vtable = table - back
    (size,) = struct.unpack_from("<H", head, vtable)
    if size < 6 + 2 * number:
        return 0
    (offset,) = struct.unpack_from("<H", head, vtable + 4 + 2 * number)
    return table + int(offset) if offset else 0


def _library(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        raise Refused(f"{name} is not installed there, and is needed for this value") from None
