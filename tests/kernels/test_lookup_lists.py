"""Lists of keys that are kept in order without a branch."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vecdb.kernels._lookup import insert_key

KEYS = st.lists(st.integers(0, (1 << 64) - 1) | st.sampled_from([0, 1, (1 << 64) - 1]), min_size=1, max_size=70)


@given(KEYS)
def test_keys_that_are_put_in_one_by_one_are_sorted(given_keys):
    keys = np.full(len(given_keys), 77, np.uint64)
    for place, key in enumerate(given_keys):
        insert_key(keys[: place + 1], np.uint64(key))
        assert keys[: place + 1].tolist() == sorted(given_keys[: place + 1])
        assert (keys[place + 1 :] == 77).all()


@given(KEYS, st.integers(1, 12))
def test_a_full_list_keeps_the_least_of_all(given_keys, room):
    keys = np.full(room, (1 << 64) - 1, np.uint64)
    for key in given_keys:
        if key < keys[-1]:
            insert_key(keys, np.uint64(key))
    wanted = sorted([*given_keys, *[(1 << 64) - 1] * room])[:room]
    assert keys.tolist() == wanted
