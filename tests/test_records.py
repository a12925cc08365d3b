import numpy as np
import pyarrow as pa
import pytest

from darkhaloscope import records, results
from darkhaloscope.records import MANIFEST, STAMPS, allowed_metadata
from darkhaloscope.schema import Column, Schema, SchemaError, check_schema, refuse_unknown, to_batch

SMALL = Schema(
    "small",
    "a table of a test",
    (
        Column("ra", pa.float64(), "deg", "right ascension"),
        Column("dec", pa.float64(), "deg", "declination"),
        Column("note", pa.string(), "", "free text", nullable=True),
    ),
)


def test_columns_are_ordered_by_name_so_swapped_ones_cannot_pass_by_position():
    batch = to_batch(SMALL, {"note": ["a"], "dec": [2.0], "ra": [1.0]})
    assert batch.schema.names == ["ra", "dec", "note"]
    assert batch.column("ra").to_pylist() == [1.0]
    assert batch.column("dec").to_pylist() == [2.0]


def test_every_fault_of_a_batch_is_named_at_once():
    with pytest.raises(SchemaError) as error:
        to_batch(SMALL, {"ra": [1.0], "decl": [2.0, 3.0]})
    for word in (
        "small",
        "missing column 'dec'",
        "missing column 'note'",
        "unknown column 'decl'",
        "lengths",
    ):
        assert word in str(error.value)


@pytest.mark.parametrize("bad", [["x"], [None]])
def test_a_value_that_cannot_be_cast_names_its_column_and_type(bad):
    with pytest.raises(SchemaError, match=r"column 'ra' \(expected double\)"):
        to_batch(SMALL, {"ra": bad, "dec": [1.0], "note": ["a"]})


def test_null_is_kept_where_it_is_allowed():
    assert to_batch(SMALL, {"ra": [1.0], "dec": [1.0], "note": [None]}).column("note").null_count == 1


def test_a_reader_names_the_file_and_every_missing_or_mistyped_column():
    found = pa.schema([("ra", pa.float32()), ("note", pa.string())])
    with pytest.raises(SchemaError) as error:
        check_schema(SMALL, found, "part-3.parquet")
    for word in ("part-3.parquet", "'ra' is float, expected double", "missing column 'dec'"):
        assert word in str(error.value)


def test_column_order_does_not_matter_to_a_reader_but_an_unknown_column_does():
    found = pa.schema([("note", pa.string()), ("dec", pa.float64()), ("ra", pa.float64()), ("x", pa.int8())])
    check_schema(SMALL, found, "here")
    with pytest.raises(SchemaError, match=r"unknown columns \['x'\]"):
        refuse_unknown(SMALL, found, "here")


def test_every_column_says_what_it_means_and_is_defined_once():
    for schema in (*records.SCHEMAS, *results.SCHEMAS):
        assert len(set(schema.names)) == len(schema.names)
        assert all(c.meaning for c in schema.columns)


def test_a_schema_with_a_column_twice_is_refused():
    with pytest.raises(SchemaError, match="twice"):
        Schema("bad", "", (SMALL.columns[0], SMALL.columns[0]))


def test_every_injection_column_leaks_and_none_of_them_may_be_model_input():
    leaking = {c.name for c in STAMPS.columns if c.leaks_label}
    for name in ("is_control", "theta_e_arcsec", "arc_snr", "arc_snr_max_pixel", "metrics_ok", "src_mag_r",
                 "theta_over_psf", "magnification", "task_id", "partner_task_id"):  # fmt: skip
        assert name in leaking
    assert not leaking & set(allowed_metadata())
    assert {"psfsize_r", "psfdepth_r"} <= set(allowed_metadata())
    assert not {"ra", "dec", "host_id", "sky_cell"} & set(allowed_metadata())


def test_a_stamp_row_carries_its_whole_manifest_row():
    assert STAMPS.names[: len(MANIFEST.names)] == MANIFEST.names


def test_float64_input_is_rounded_to_a_float32_column_without_complaint():
    schema = Schema("f", "", (Column("x", pa.float32(), "", "x"),))
    assert to_batch(schema, {"x": np.array([0.1])}).column("x").type == pa.float32()
