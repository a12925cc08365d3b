"""What a table is: named columns with Arrow type, unit and meaning, and the one builder of batches.

The tables themselves stand in `darkhaloscope.records` and `darkhaloscope.results`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from darkhaloscope.errors import Explained


class SchemaError(Explained, ValueError):
    """A table does not have the columns its schema says; the message names each of them."""


STR, I8, I32, I64 = pa.string(), pa.int8(), pa.int32(), pa.int64()
F32, F64 = pa.float32(), pa.float64()


@dataclass(frozen=True)
class Column:
    """One column: Arrow type, unit, one line of meaning, and whether it knows the injection."""

    name: str
    type: pa.DataType
    unit: str
    meaning: str
    leaks_label: bool = False
    nullable: bool = False

    def field(self) -> pa.Field:
        """Return the Arrow field, unit and meaning in its metadata."""
        metadata = {"unit": self.unit, "meaning": self.meaning, "leaks_label": str(self.leaks_label).lower()}
        return pa.field(self.name, self.type, self.nullable, metadata)


@dataclass(frozen=True)
class Schema:
    """A named, ordered set of columns."""

    name: str
    meaning: str
    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        names = self.names
        if repeated := {n for n in names if names.count(n) > 1}:
            raise SchemaError(f"schema {self.name}: columns defined twice: {sorted(repeated)}")

    @property
    def names(self) -> list[str]:
        """Column names in order."""
        return [c.name for c in self.columns]

    def arrow(self, metadata: Mapping[str, str] | None = None) -> pa.Schema:
        """Return the Arrow schema, with the table's name and `metadata` in the file metadata."""
        return pa.schema([c.field() for c in self.columns], {"table": self.name, **(metadata or {})})


def to_batch(
    schema: Schema, columns: Mapping[str, Any], metadata: Mapping[str, str] | None = None
) -> pa.RecordBatch:
    """Order, cast and name `columns` as `schema` says. Nothing else builds a batch.

    Args:
        schema: the table.
        columns: name -> sequence, numpy array or Arrow array, all of one length, in any order.
        metadata: extra file metadata (for stamps: see `stamp_metadata`).

    Raises:
        SchemaError: a column is missing, unknown, of another length, of a type that cannot be cast without
            loss, or has nulls where none are allowed. All faults are named at once.
    """
    faults = [f"missing column {n!r}" for n in schema.names if n not in columns]
    faults += [f"unknown column {n!r}" for n in columns if n not in schema.names]
    lengths = {n: len(v) for n, v in columns.items()}
    if len(set(lengths.values())) > 1:
        faults.append(f"columns of different lengths: {lengths}")
    arrays: list[pa.Array] = []
    if not faults:
        for column in schema.columns:
            try:
                arrays.append(_cast(column, columns[column.name]))
            except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, ValueError) as error:
                faults.append(f"column {column.name!r} (expected {column.type}): {error}")
    if faults:
        raise SchemaError(f"table {schema.name}: " + "; ".join(faults))
    return pa.RecordBatch.from_arrays(arrays, schema=schema.arrow(metadata))


def _cast(column: Column, values: Any) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if isinstance(values, np.ndarray) and values.dtype.kind == "f" and pa.types.is_floating(column.type):
        values = values.astype(column.type.to_pandas_dtype(), copy=False)
    array = values.cast(column.type) if isinstance(values, pa.Array) else pa.array(values, column.type)
    if array.null_count and not column.nullable:
        raise ValueError(f"{array.null_count} nulls where none are allowed")
    return array


def check_schema(schema: Schema, found: pa.Schema, where: str, only: Iterable[str] | None = None) -> None:
    """Check that `found` has the columns of `schema` (or just those in `only`) with their types.

    Column order and further columns do not matter: readers select by name.

    Raises:
        SchemaError: names `where` (file or table) and every missing or mistyped column.
    """
    wanted = schema.names if only is None else list(only)
    faults = []
    for column in schema.columns:
        if column.name not in wanted:
            continue
        index = found.get_field_index(column.name)
        if index < 0:
            faults.append(f"missing column {column.name!r}")
        elif found.field(index).type != column.type:
            faults.append(f"column {column.name!r} is {found.field(index).type}, expected {column.type}")
    if faults:
        raise SchemaError(f"{where}: not a {schema.name} table: " + "; ".join(faults))


def refuse_unknown(schema: Schema, found: pa.Schema, where: str) -> None:
    """Raise `SchemaError` when `found` has a column that `schema` does not know."""
    if unknown := [n for n in found.names if n not in schema.names]:
        raise SchemaError(f"{where}: unknown columns {unknown}; a {schema.name} table has {schema.names}")
