"""Work ahead keeps its order and its errors."""

import threading

import pytest

from evaluation.ahead import ahead


def test_items_come_in_order_made_in_another_thread():
    made = []

    def items():
        for i in range(7):
            made.append(threading.current_thread())
            yield i

    assert list(ahead(items())) == list(range(7))
    assert len(set(made)) == 1 and made[0] is not threading.current_thread()
    assert list(ahead(iter(()))) == []


def test_an_error_comes_where_its_item_would_have():
    def items():
        yield 1
        yield 2
        raise ValueError("third")

    found = []
    with pytest.raises(ValueError, match="third"):
        for item in ahead(items()):
            found.append(item)
    assert found == [1, 2]


def test_no_more_is_made_than_the_depth_allows():
    made = []
    first = next(ahead(iter([made.append(i) or i for i in range(3)]), 1))
    assert first == 0
    lazy = (made.append(i) for i in range(100))
    running = ahead(lazy, 3)
    next(running)
    running.close()
    assert len(made) <= 3 + 1 + 3
