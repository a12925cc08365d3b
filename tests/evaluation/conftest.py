"""Fixtures of the evaluation tests."""

import pytest
from fabricate import drawn_logits, fabricated_columns, write_scores


@pytest.fixture(scope="session")
def scores_root(tmp_path_factory):
    """A scores dataset of 4,000 rows in 30 sky cells, in two files."""
    root = tmp_path_factory.mktemp("scores")
    for chunk in (0, 1):
        columns = fabricated_columns(2_000, seed=chunk)
        write_scores(root, columns, drawn_logits(columns, chunk), chunk)
    return str(root)
