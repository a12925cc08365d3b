"""Rows of candidates that no search made."""

import numpy as np
import pyarrow as pa

from darkhaloscope.results import CANDIDATES
from darkhaloscope.search.names import designations, healpix_29, viewer_urls


def candidates(ra, dec, logit, **columns) -> pa.Table:
    """CANDIDATES rows without pixels, NaN logits refused; `columns` set others."""
    ra, dec, logit = (np.asarray(v, np.float64) for v in (ra, dec, logit))
    n = len(ra)
    made = {}
    for c in CANDIDATES.columns:
        if c.name == "stamp":
            continue
        if c.nullable:
            made[c.name] = pa.nulls(n, c.type)
        else:
            made[c.name] = (
                pa.array(np.zeros(n)).cast(c.type) if not pa.types.is_string(c.type) else pa.repeat("", n)
            )
    made |= {
        "ra": ra, "dec": dec, "host_id": np.arange(n), "name": designations(ra, dec),
        "_healpix_29": healpix_29(ra, dec), "viewer_url": viewer_urls(ra, dec),
        "logit": pa.array(logit.astype(np.float32), mask=np.isnan(logit)),
        "refused": pa.array(np.where(np.isnan(logit), "no data", "").astype(object), pa.string()),
    } | columns  # fmt: skip
    schema = pa.schema([c.field() for c in CANDIDATES.columns if c.name != "stamp"])
    return pa.table({n: pa.array(made[n], schema.field(n).type) for n in schema.names}, schema)
