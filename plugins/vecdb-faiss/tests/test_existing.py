"""Files of Faiss: what is read is what went in, or it is said that it is not."""

import faiss
import numpy as np
import pytest
from vecdb_faiss import read_index

from vecdb.errors import CorruptionError, ParameterError

ROWS = np.random.default_rng(2).standard_normal((400, 8)).astype(np.float32)
IDS = np.random.default_rng(3).permutation(9_000)[:400].astype(np.int64)


def saved(path, factory, metric=faiss.METRIC_L2, ids=None):
    index = faiss.index_factory(8, factory, metric)
    index.train(ROWS)
    if ids is None:
        index.add(ROWS)
    else:
        index.add_with_ids(ROWS, ids)
    faiss.write_index(index, str(path))
    return path


@pytest.mark.parametrize("metric", [faiss.METRIC_L2, faiss.METRIC_INNER_PRODUCT])
@pytest.mark.parametrize(
    ("factory", "ids"),
    [
        ("Flat", None),
        ("HNSW8,Flat", None),
        ("IVF4,Flat", None),
        ("IVF4,Flat", IDS),
        ("IDMap,HNSW8,Flat", IDS),
        ("IDMap2,Flat", IDS),
        ("PQ4x4,RFlat", None),
    ],
)
def test_ids_and_vectors_come_back(tmp_path, factory, ids, metric):
    old = read_index(saved(tmp_path / "old.faiss", factory, metric, ids))
    expected = dict(zip(range(400) if ids is None else ids.tolist(), ROWS, strict=True))
    assert sorted(old.ids.tolist()) == sorted(expected)
    assert np.array_equal(old.vectors, np.array([expected[each] for each in old.ids.tolist()]))
    assert old.exact and old.metric == ("l2" if metric == faiss.METRIC_L2 else "dot")


def test_codes_are_taken_over_only_when_that_is_wished(tmp_path):
    path = saved(tmp_path / "old.faiss", "IVF4,SQ8", ids=IDS)
    with pytest.raises(ParameterError, match="keeps codes"):
        read_index(path)
    old = read_index(path, approximate=True)
    expected = dict(zip(IDS.tolist(), ROWS, strict=True))
    assert not old.exact
    assert np.allclose(old.vectors, np.array([expected[each] for each in old.ids.tolist()]), atol=0.05)


def test_another_metric_is_said(tmp_path):
    with pytest.raises(ParameterError, match="compares by metric"):
        read_index(saved(tmp_path / "old.faiss", "Flat", faiss.METRIC_L1))


def test_a_part_of_a_file_is_refused(tmp_path):
    whole = saved(tmp_path / "old.faiss", "HNSW8,Flat").read_bytes()
    for length in (0, 10, 100, len(whole) - 1):
        (tmp_path / "cut.faiss").write_bytes(whole[:length])
        with pytest.raises(CorruptionError, match=r"cut\.faiss"):
            read_index(tmp_path / "cut.faiss")
    with pytest.raises(FileNotFoundError):
        read_index(tmp_path / "missing.faiss")
