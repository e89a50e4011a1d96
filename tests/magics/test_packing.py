"""``-i`` and ``-o``: what passes comes out as it went in, and nothing that was made to harm gets through."""

from __future__ import annotations

import io
import json
import math
import pickle
import struct
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_sandbox.magics import packing
from jupyter_sandbox.magics.packing import LIMIT, Refused, pack, unpack

from .conftest import RunCells, errors_of, text_of

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.none() | st.booleans() | st.integers() | st.text() | st.binary(), inner, max_size=5)
    ),
    max_leaves=30,
)


@given(st.dictionaries(st.text(min_size=1), values))
def test_plain_values_come_out_as_they_went_in(variables: dict[str, Any]) -> None:
    found = unpack(pack(variables))
    assert found == variables
    assert repr(found) == repr(variables)


def test_nan_and_huge_integers_pass() -> None:
    found = unpack(pack({"x": [math.nan, math.inf, -(10**6000)]}))["x"]
    assert math.isnan(found[0])
    assert found[1:] == [math.inf, -(10**6000)]


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12).reshape(3, 4),
        np.asfortranarray(np.arange(12).reshape(3, 4)),
        np.array(3.5),
        np.zeros((0, 3)),
        np.array(["a", "bcd"]),
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        np.array(["2026-01-01"], dtype="datetime64[D]"),
        np.array([1 + 2j], dtype=">c16"),
    ],
)
def test_arrays_without_objects_pass(array: np.ndarray[Any, Any]) -> None:
    found = unpack(pack({"x": array}))["x"]
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    assert found.flags.writeable
    np.testing.assert_array_equal(found, array)


def test_data_frames_pass() -> None:
    frame = pd.DataFrame(
        {
            "a": [1, 2],
            "b": ["x", None],
            "c": pd.Categorical(["p", "q"]),
            "d": pd.to_datetime(["2026-01-01", "2026-01-02"]).tz_localize("UTC"),
            "e": [True, False],
            "f": [[1], [2, 3]],
        },
        index=pd.Index(["r", "s"], name="rows"),
    )
    found = unpack(pack({"x": frame}))["x"]
    pd.testing.assert_frame_equal(found.drop(columns="f"), frame.drop(columns="f"))
    assert [list(cell) for cell in found["f"]] == [[1], [2, 3]]


class Own:
    """Of no type that passes."""


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ((1, 2), "builtins.tuple"),
        ({1, 2}, "builtins.set"),
        (Own(), "Own"),
        (np.float64(1), "numpy.float64"),
        (np.array([Own()]), "objects"),
        (pd.Series([1]), "Series"),
        (pd.DataFrame({"a": pd.period_range("2026", periods=2)}), "a"),
        (pd.DataFrame({"a": [Own()]}), "Arrow"),
        ([[Own()]], "Own"),
        (b"x" * (LIMIT + 1), "may pass"),
        (np.zeros(LIMIT), "may pass"),
    ],
)
def test_what_does_not_pass_is_refused_with_variable_and_reason(value: Any, said: str) -> None:
    with pytest.raises(Refused, match=r"^x: ") as caught:
        pack({"x": value})
    assert said in str(caught.value)


def test_a_value_within_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(Refused, match="nested"):
        pack({"x": endless})


# --- what a hostile sandbox would send -----------------------------------------------------------------


def forged(tree: Any, *blobs: bytes) -> bytes:
    head = json.dumps({"variables": tree, "sizes": [len(blob) for blob in blobs]}).encode()
    return b"".join([packing._HEAD.pack(packing._MAGIC, len(head)), head, *blobs])


def npy(header: dict[str, Any], data: bytes) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + data


def stream(table: pa.Table, **options: Any) -> bytes:
    file = io.BytesIO()
    with pa.ipc.new_stream(file, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return file.getvalue()


class Boom:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("unpickled",))


def object_array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([Boom()], dtype=object), allow_pickle=True)
    return file.getvalue()


PLAIN = pa.table({"a": list(range(5000))})


@pytest.mark.parametrize(
    ("tag", "blob"),
    [
        ("numpy", object_array()),
        ("numpy", npy({"descr": "|O", "fortran_order": False, "shape": (1,)}, pickle.dumps([Boom()]))),
        ("numpy", npy({"descr": "<f8", "fortran_order": False, "shape": (10**15,)}, b"")),
        ("numpy", npy({"descr": "|V0", "fortran_order": False, "shape": (10**15,)}, b"")),
        ("numpy", npy({"descr": "<f8", "fortran_order": False, "shape": (2,)}, b"12345678")),
        ("numpy", b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535),
        ("numpy", b"nonsense"),
        ("numpy", pickle.dumps(Boom())),
        ("arrow", stream(PLAIN, compression="lz4")),
        ("arrow", stream(PLAIN, compression="zstd")),
        ("arrow", stream(pa.table({"a": pa.nulls(10**9)}))),
        ("arrow", stream(pa.table({"a": pa.array([{}] * 3, pa.struct([]))}))),
        ("arrow", stream(pa.table({"a": pa.array(["x"], pa.string_view())}))),
        ("arrow", stream(pa.table({"a": pa.RunEndEncodedArray.from_arrays([10**9], [1])}))),
        (
            "arrow",
            stream(
                pa.table(
                    [pa.array([b"x"])],
                    schema=pa.schema(
                        [pa.field("a", pa.binary(), metadata={"ARROW:extension:name": "arrow.py_extension_type"})]
                    ),
                )
            ),
        ),
        ("arrow", stream(pa.table({"a": pa.array(["p", "q"]).dictionary_encode()}), compression="zstd")),
        ("arrow", stream(PLAIN)[:-40]),
        ("arrow", b"nonsense" * 10),
        ("arrow", b""),
        ("pickle", pickle.dumps(Boom())),
    ],
)
def test_what_a_sandbox_forges_is_refused(tag: str, blob: bytes) -> None:
    with pytest.raises(Refused):
        unpack(forged({"x": {"$": tag, "blob": 0}}, blob))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"jsb1",
        pickle.dumps({"x": 1}),
        packing._HEAD.pack(b"jsb1", 2**60),
        forged({"x": {"$": "bytes", "blob": 7}}),
        forged({"x": {"$": "bytes", "blob": -1}}, b"a"),
        forged({"x": {"$": "bytes", "blob": True}}, b"a"),
        forged({"x": {}}),
        forged([1]),
        forged({"x": {"$": "dict", "items": [[[], 1]]}}),
        forged({"x": {"$": "float", "text": "1e999"}}),
        forged({"x": {"$": "int", "hex": "zz"}}),
    ],
)
def test_what_has_not_the_form_is_refused(data: bytes) -> None:
    with pytest.raises(Refused):
        unpack(data)


def test_deep_nesting_is_refused() -> None:
    head = b'{"variables": {"x": ' + b"[" * 100_000 + b"]" * 100_000 + b'}, "sizes": []}'
    with pytest.raises(Refused):
        unpack(packing._HEAD.pack(packing._MAGIC, len(head)) + head)


@given(st.binary(max_size=200), st.integers(0, 400), st.binary(min_size=1, max_size=4))
def test_broken_arrow_never_raises_anything_else(tail: bytes, position: int, change: bytes) -> None:
    blob = bytearray(stream(pa.table({"a": [1, 2], "b": ["x", "y"]})))
    position = position % (len(blob) - len(change))
    blob[position : position + len(change)] = change
    try:
        unpack(forged({"x": {"$": "arrow", "blob": 0}}, bytes(blob) + tail))
    except Refused:
        return


def test_sizes_that_lie_are_refused() -> None:
    head = json.dumps({"variables": {}, "sizes": [10**12]}).encode()
    with pytest.raises(Refused):
        unpack(struct.pack("<4sQ", packing._MAGIC, len(head)) + head)


# --- through a real sandbox ----------------------------------------------------------------------------


@pytest.mark.bubblewrap
def test_variables_travel_in_and_out_and_leave_nothing_behind(cells: RunCells) -> None:
    ran = cells(
        [
            "import numpy, pandas\nn, f = numpy.eye(2), pandas.DataFrame({'a': [1, 2]})\nd = {'k': [b'x', 2**70]}",
            "%%sandbox a\nbefore = set(dir())",
            "%%sandbox a -i n -i f -i d -o t -o f -o d2\nt = float(n.sum())\nf['b'] = 2 * f.a; d2 = {**d, 'm': n}",
            "print(t, list(f.b), d2['k'] == d['k'], d2['m'].sum())",
            "%%sandbox a\nprint(sorted(name for name in set(dir()) - before if not name.startswith('_')))\n!ls -A /tmp",
            "%%sandbox a -o t\nt = {1, 2}",
            "%%sandbox a -o nowhere\nprint('ran')",
            "%%sandbox a -o t\n1 / 0",
            "print(t)",
        ]
    )
    assert text_of(ran[3]) == "2.0 [2, 4] True 2.0\n"
    assert text_of(ran[4]).startswith("['before', 'd', 'd2', 'f', 'n', 't']\n")
    assert "jupyter-sandbox" not in text_of(ran[4])
    assert "t: type builtins.set does not pass" in errors_of(ran[5])[0][1]
    assert "nowhere" in errors_of(ran[6])[0][1]
    assert errors_of(ran[7])[0][0] == "ZeroDivisionError"
    assert text_of(ran[8]) == "2.0\n"
