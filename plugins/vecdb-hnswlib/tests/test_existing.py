"""Files of hnswlib: what is read is what the library would have given."""

import hnswlib
import numpy as np
import pytest
from vecdb_hnswlib import read_index

from vecdb.errors import CorruptionError

ROWS = np.random.default_rng(2).standard_normal((90, 5)).astype(np.float32)
LABELS = np.random.default_rng(3).permutation(1_000)[:90]


def saved(path, space="l2", rows=ROWS, labels=LABELS):
    index = hnswlib.Index(space, rows.shape[1])
    index.init_index(200, M=6, ef_construction=40, random_seed=1)
    index.add_items(rows, labels)
    index.save_index(str(path))
    return index


@pytest.mark.parametrize("space", ["l2", "ip", "cosine"])
def test_ids_vectors_and_parameters_come_back(tmp_path, space):
    index = saved(tmp_path / "old.bin", space)
    old = read_index(tmp_path / "old.bin")
    assert sorted(old.ids.tolist()) == sorted(LABELS.tolist()) and old.ids.dtype == np.int64
    assert np.array_equal(old.vectors, np.asarray(index.get_items(old.ids), np.float32))
    assert old.params == {"M": 6, "ef_construction": 40}


def test_deleted_elements_are_left_out(tmp_path):
    index = saved(tmp_path / "old.bin")
    index.mark_deleted(int(LABELS[4]))
    index.save_index(str(tmp_path / "old.bin"))
    old = read_index(tmp_path / "old.bin")
    assert len(old.ids) == len(old.vectors) == 89 and LABELS[4] not in old.ids


@pytest.mark.parametrize("length", [0, 50, 96, 97, 5_000])
def test_a_part_of_a_file_is_refused(tmp_path, length):
    saved(tmp_path / "old.bin")
    whole = (tmp_path / "old.bin").read_bytes()
    (tmp_path / "cut.bin").write_bytes(whole[:length])
    with pytest.raises(CorruptionError, match=r"cut\.bin"):
        read_index(tmp_path / "cut.bin")


def test_another_kind_of_file_is_refused(tmp_path):
    (tmp_path / "other.bin").write_bytes(b"\x93NUMPY" + bytes(range(256)) * 8)
    with pytest.raises(CorruptionError):
        read_index(tmp_path / "other.bin")


def test_a_label_that_is_no_id_is_refused(tmp_path):
    saved(tmp_path / "old.bin", labels=np.arange(90).astype(np.uint64) + np.uint64(2**63))
    with pytest.raises(CorruptionError, match="no id"):
        read_index(tmp_path / "old.bin")
