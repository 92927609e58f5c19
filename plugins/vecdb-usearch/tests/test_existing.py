"""Files of USearch: what is read is what the library would have given."""

import numpy as np
import pytest
from usearch.index import Index
from vecdb_usearch import read_index

from vecdb.errors import CorruptionError, ParameterError

ROWS = np.random.default_rng(2).standard_normal((90, 5)).astype(np.float32)
KEYS = np.random.default_rng(3).permutation(1_000)[:90].astype(np.uint64)


def saved(path, metric="l2sq", dtype="f32"):
    index = Index(ndim=5, metric=metric, dtype=dtype, connectivity=6)
    index.add(KEYS, ROWS)
    index.save(str(path))
    return index


@pytest.mark.parametrize(("metric", "ours"), [("l2sq", "l2"), ("ip", "dot"), ("cos", "cosine")])
@pytest.mark.parametrize("dtype", ["f64", "f32", "f16", "bf16"])
def test_keys_vectors_and_parameters_come_back(tmp_path, metric, ours, dtype):
    saved(tmp_path / "old.usearch", metric, dtype)
    old = read_index(tmp_path / "old.usearch")
    assert sorted(old.ids.tolist()) == sorted(KEYS.tolist())
    of = {key: row for key, row in zip(KEYS.tolist(), ROWS, strict=True)}
    expected = np.array([of[key] for key in old.ids.tolist()])
    assert np.allclose(old.vectors, expected, atol={"f16": 2e-3, "bf16": 2e-2}.get(dtype, 0), rtol=0)
    assert old.metric == ours and old.params == {"connectivity": 6, "dtype": "f16" if dtype == "f16" else "f32"}


def test_removed_keys_are_left_out(tmp_path):
    index = saved(tmp_path / "old.usearch")
    index.remove(int(KEYS[4]))
    index.save(str(tmp_path / "old.usearch"))
    old = read_index(tmp_path / "old.usearch")
    assert len(old.ids) == len(old.vectors) == 89 and int(KEYS[4]) not in old.ids


@pytest.mark.parametrize(("metric", "dtype"), [("cos", "i8"), ("pearson", "f32")])
def test_what_cannot_be_taken_over_is_said(tmp_path, metric, dtype):
    saved(tmp_path / "old.usearch", metric, dtype)
    with pytest.raises(ParameterError, match="cannot be taken over"):
        read_index(tmp_path / "old.usearch")


@pytest.mark.parametrize("length", [0, 5, 8, 100, 2_000])
def test_a_part_of_a_file_is_refused(tmp_path, length):
    saved(tmp_path / "old.usearch")
    whole = (tmp_path / "old.usearch").read_bytes()
    (tmp_path / "cut.usearch").write_bytes(whole[:length])
    with pytest.raises(CorruptionError, match=r"cut\.usearch"):
        read_index(tmp_path / "cut.usearch")
