"""Vector files: every range reads what numpy reads, and files that lie about themselves are refused."""

import io
import warnings
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vecdb.errors import DimensionError, DTypeError, FileAccessError, SourceError, VecdbError, ZeroVectorError
from vecdb.interchange.convert import as_vectors
from vecdb.interchange.npyfile import NpyWriter, read_header
from vecdb.interchange.queries import read_vectors
from vecdb.interchange.vectorfiles import ArraySource, open_vectors

TYPES = ["<f2", "<f4", ">f4", "<f8", "i1", "u1", "<i4", ">i2"]


def read_all(path, step):
    source = open_vectors(str(path))
    try:
        assert source.rows >= 0
        parts = [source.read(start, min(start + step, source.rows)) for start in range(0, source.rows, step)]
        return np.concatenate(parts) if parts else np.empty((0, source.dim), source.dtype)
    finally:
        source.close()


def typed(action):
    """The result, or the text of a typed error; anything else escapes."""
    try:
        return action()
    except VecdbError as error:
        return str(error)


def matrix(rows=7, dim=5, dtype="<f4", seed=0):
    return (np.random.default_rng(seed).standard_normal((rows, dim)) * 50).astype(dtype)


# --- npy --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("step", [1, 3, 100])
def test_npy_ranges_are_what_numpy_reads(tmp_path, dtype, order, step):
    array = np.asarray(matrix(dtype=dtype), order=order)
    np.save(tmp_path / "x.npy", array)
    found = read_all(tmp_path / "x.npy", step)
    assert found.dtype == array.dtype.newbyteorder("=")  # joining the parts makes them native
    np.testing.assert_array_equal(found, array)


def test_npy_without_rows(tmp_path):
    np.save(tmp_path / "x.npy", np.empty((0, 4), np.float32))
    source = open_vectors(str(tmp_path / "x.npy"))
    assert (source.rows, source.dim) == (0, 4)
    source.close()


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_all_versions_of_the_header_are_read(tmp_path, version):
    array = matrix()
    with open(tmp_path / "x.npy", "wb") as stream, warnings.catch_warnings(action="ignore"):
        np.lib.format.write_array(stream, array, version=version)
    np.testing.assert_array_equal(read_all(tmp_path / "x.npy", 4), array)


@given(
    hnp.arrays(st.sampled_from([np.float16, np.float32, np.int64]), st.tuples(st.integers(0, 20), st.integers(1, 9)))
)
def test_what_the_writer_writes_numpy_reads(tmp_path_factory, array):
    path = tmp_path_factory.mktemp("npy") / "x.npy"
    writer = NpyWriter(str(path), array.dtype, array.shape[1])
    for start in range(0, len(array), 3):
        writer.append(array[start : start + 3])
    writer.finish()
    found = np.load(path, allow_pickle=False)
    assert found.shape == array.shape and found.tobytes() == array.tobytes()


def test_an_unfinished_file_says_it_is_empty(tmp_path):
    writer = NpyWriter(str(tmp_path / "x.npy"), np.float32, 3)
    writer.append(np.ones(3))
    writer.close()
    with open(tmp_path / "x.npy", "rb") as stream:
        assert read_header(stream, "x").shape == (0, 3)


def test_the_writer_does_not_replace_a_file(tmp_path):
    (tmp_path / "x.npy").touch()
    with pytest.raises(FileExistsError):
        NpyWriter(str(tmp_path / "x.npy"), np.float32, 3)


def npy_bytes(header, data=b"", *, magic=b"\x93NUMPY\x01\x00", length=None):
    text = header if isinstance(header, bytes) else header.encode()
    return magic + (len(text) if length is None else length).to_bytes(2, "little") + text + data


GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"
HOSTILE = {
    "empty file": b"",
    "only the magic": b"\x93NUMPY",
    "another magic": b"PK\x03\x04aaaaaaaaaa",
    "a version from the future": npy_bytes(GOOD, bytes(24), magic=b"\x93NUMPY\x09\x00"),
    "header cut off": npy_bytes(GOOD, length=500),
    "header of 60 KB": npy_bytes(b" " * 60_000),
    "no python": npy_bytes("{'descr':"),
    "an expression": npy_bytes("__import__('os').system('true')"),
    "deep nesting": npy_bytes(b"(" * 3000),
    "no dict": npy_bytes("[1, 2]"),
    "unhashable key": npy_bytes("{[]: 1}"),
    "keys missing": npy_bytes("{'descr': '<f4'}"),
    "keys too many": npy_bytes(GOOD.replace("}", "'x': 1}"), bytes(24)),
    "fortran is a str": npy_bytes(GOOD.replace("False", "'no'"), bytes(24)),
    "shape is a list": npy_bytes(GOOD.replace("(2, 3)", "[2, 3]"), bytes(24)),
    "negative rows": npy_bytes(GOOD.replace("(2, 3)", "(-2, 3)"), bytes(24)),
    "boolean rows": npy_bytes(GOOD.replace("(2, 3)", "(True, 3)"), bytes(12)),
    "2**62 rows": npy_bytes(GOOD.replace("(2, 3)", f"({2**62}, 3)"), bytes(24)),
    "2**40 rows": npy_bytes(GOOD.replace("(2, 3)", f"({2**40}, 3)"), bytes(24)),
    "product beyond 64 bits": npy_bytes(GOOD.replace("(2, 3)", f"({2**47}, {2**47})"), bytes(24)),
    "one byte missing": npy_bytes(GOOD, bytes(23)),
    "one byte too many": npy_bytes(GOOD, bytes(25)),
    "objects": npy_bytes(GOOD.replace("<f4", "|O"), bytes(48)),
    "text": npy_bytes(GOOD.replace("<f4", "<U4"), bytes(96)),
    "complex": npy_bytes(GOOD.replace("<f4", "<c8"), bytes(48)),
    "dates": npy_bytes(GOOD.replace("<f4", "<M8[s]"), bytes(48)),
    "a type that does not exist": npy_bytes(GOOD.replace("<f4", "<f1"), bytes(6)),
    "fields": npy_bytes(GOOD.replace("'<f4'", "[('a', '<f4')]"), bytes(24)),
    "one axis": npy_bytes(GOOD.replace("(2, 3)", "(6,)"), bytes(24)),
    "three axes": npy_bytes(GOOD.replace("(2, 3)", "(1, 2, 3)"), bytes(24)),
    "no width": npy_bytes(GOOD.replace("(2, 3)", "(2, 0)")),
    "too wide": npy_bytes(GOOD.replace("(2, 3)", "(1, 65537)"), bytes(4 * 65537)),
    "nine axes": npy_bytes(GOOD.replace("(2, 3)", "(1,1,1,1,1,1,1,1,1)"), bytes(4)),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_npy_files_are_refused_by_name(tmp_path, data):
    path = tmp_path / "hostile.npy"
    path.write_bytes(data)
    with pytest.raises((SourceError, DTypeError, DimensionError), match=r"hostile\.npy"):
        open_vectors(str(path))
    if b"(6,)" not in data:  # one vector is a query, though not a file of vectors
        with pytest.raises(VecdbError):
            read_vectors(data if data[:1] == b"\x93" else b"?" + data)


def test_objects_are_not_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "touched"), "w"))

    np.save(tmp_path / "x.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    with pytest.raises(DTypeError, match="never unpickled"):
        open_vectors(str(tmp_path / "x.npy"))
    assert not (tmp_path / "touched").exists()


def test_a_file_that_shrinks_while_it_is_read_gives_an_error_and_no_signal(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, matrix(1000, 64))
    source = open_vectors(str(path))
    with open(path, "r+b") as stream:
        stream.truncate(4096)
    with pytest.raises(SourceError, match="cut off"):
        source.read(500, 600)
    source.close()


@given(st.data())
def test_a_changed_byte_gives_rows_or_a_typed_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("flip") / "x.npy"
    np.save(path, matrix(3, 4))
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    found = typed(lambda: read_all(path, 2))
    assert isinstance(found, np.ndarray) or "x.npy" in found


# --- npz --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f8"])
def test_npz_members_are_read_as_a_stream(tmp_path, save, dtype):
    one, two = matrix(11, 3, dtype), matrix(5, 4, dtype, seed=1)
    save(tmp_path / "x.npz", one=one, two=two)
    np.testing.assert_array_equal(read_all(f"{tmp_path}/x.npz::one", 4), one)
    np.testing.assert_array_equal(read_all(f"{tmp_path}/x.npz::two", 100), two)


def test_npz_can_go_forward_and_back(tmp_path):
    array = matrix(50, 3)
    np.savez_compressed(tmp_path / "x.npz", array)
    source = open_vectors(str(tmp_path / "x.npz"))
    for start, stop in ((20, 30), (45, 50), (0, 5), (5, 6)):
        np.testing.assert_array_equal(source.read(start, stop), array[start:stop])
    source.close()


@pytest.mark.parametrize("name", ["x.npz", "x.npz::three"])
def test_npz_says_which_arrays_there_are(tmp_path, name):
    np.savez(tmp_path / "x.npz", one=matrix(), two=matrix())
    with pytest.raises(SourceError, match="one, two"):
        open_vectors(f"{tmp_path}/{name}")


def zip_of(name, data, method=zipfile.ZIP_DEFLATED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr(name, data)
    return stream.getvalue()


def test_a_zip_bomb_costs_no_memory(tmp_path):
    import tracemalloc

    rows = 16 << 20
    header = npy_bytes(GOOD.replace("(2, 3)", f"({rows}, 4)").replace("<f4", "|i1"))
    (tmp_path / "bomb.npz").write_bytes(zip_of("a.npy", header + bytes(rows * 4)))
    assert (tmp_path / "bomb.npz").stat().st_size < 1 << 20
    tracemalloc.start()
    source = open_vectors(str(tmp_path / "bomb.npz"))
    source.read(1000, 2000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    source.close()
    assert peak < 8 << 20


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x05\x06" + bytes(18),
        b"not a zip",
        zip_of("a.npy", b"not an array"),
        zip_of("a.npy", npy_bytes(GOOD, bytes(23))),
        zip_of("a.npy", npy_bytes(GOOD.replace("<f4", "|O"), bytes(48))),
        zip_of("a.npy", npy_bytes(GOOD.replace("False", "True"), bytes(24))),
        zip_of("a.npy", npy_bytes(GOOD, bytes(24)))[:-30],
    ],
)
def test_hostile_npz_files_are_refused_by_name(tmp_path, data):
    (tmp_path / "hostile.npz").write_bytes(data)
    with pytest.raises((SourceError, DTypeError), match=r"hostile\.npz"):
        open_vectors(str(tmp_path / "hostile.npz"))


@given(st.data())
def test_a_changed_byte_of_an_archive_gives_rows_or_a_typed_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("flip") / "x.npz"
    np.savez_compressed(path, matrix(40, 4))
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    found = typed(lambda: read_all(path, 7))
    assert isinstance(found, np.ndarray) or "x.npz" in found


# --- fvecs and relatives ----------------------------------------------------------------------------------


def vecs_bytes(array):
    width = np.full((len(array), 1), array.shape[1], "<i4").view(np.uint8).reshape(len(array), 4)
    return np.hstack([width, array.view(np.uint8).reshape(len(array), -1)]).tobytes()


@pytest.mark.parametrize(("suffix", "dtype"), [("fvecs", "<f4"), ("bvecs", "u1"), ("ivecs", "<i4")])
def test_vecs_files(tmp_path, suffix, dtype):
    array = np.abs(matrix(9, 6)).astype(dtype)
    (tmp_path / f"x.{suffix}").write_bytes(vecs_bytes(array))
    for step in (1, 4, 9):
        np.testing.assert_array_equal(read_all(tmp_path / f"x.{suffix}", step), array)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x03", (3).to_bytes(4, "little"), (0).to_bytes(4, "little"), b"\xff" * 16, vecs_bytes(matrix())[:-1]],
)
def test_vecs_files_of_the_wrong_size_are_refused(tmp_path, data):
    (tmp_path / "x.fvecs").write_bytes(data)
    with pytest.raises(SourceError, match=r"x\.fvecs is not a \.fvecs file"):
        open_vectors(str(tmp_path / "x.fvecs"))


def test_a_row_of_another_width_is_named(tmp_path):
    data = bytearray(vecs_bytes(matrix(5, 3)))
    data[2 * 16 : 2 * 16 + 4] = (7).to_bytes(4, "little")
    (tmp_path / "x.fvecs").write_bytes(data)
    with pytest.raises(DimensionError, match="row 2 has width 7, expected 3"):
        read_all(tmp_path / "x.fvecs", 100)


# --- names, arrays, conversion ----------------------------------------------------------------------------


def test_unknown_suffixes_and_missing_files(tmp_path):
    with pytest.raises(SourceError, match=r"\.npy, \.fvecs"):
        open_vectors("x.txt")
    with pytest.raises(FileAccessError, match="cannot read"):
        open_vectors(str(tmp_path / "missing.npy"))
    with pytest.raises(FileAccessError, match="cannot read"):
        open_vectors(str(tmp_path / "missing.npz"))


def test_arrays_in_memory():
    source = ArraySource([[1, 2], [3, 4]], "vectors")
    assert (source.rows, source.dim) == (2, 2)
    np.testing.assert_array_equal(source.read(1, 2), [[3, 4]])
    assert source.fingerprint() is None
    with pytest.raises(DTypeError):
        ArraySource([["a"]], "vectors")
    with pytest.raises(DimensionError):
        ArraySource([1.0, 2.0], "vectors")


@pytest.mark.parametrize("dtype", TYPES)
def test_exact_types_keep_every_bit_and_others_become_float32(dtype):
    rows = matrix(dtype=dtype)
    found = as_vectors(rows, normalise=False, where="x")
    if np.dtype(dtype).newbyteorder("=") in (np.float16, np.float32):
        assert found.dtype == np.dtype(dtype).newbyteorder("=")
        assert np.array_equal(found, rows)
    else:
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, rows.astype(np.float32))


def test_normalised_int8_rows_are_decoded_as_the_formula_says():
    rows = np.random.default_rng(3).integers(-127, 128, (20, 33)).astype(np.int8)
    x = rows.astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    assert as_vectors(rows, normalise=True, where="x").tobytes() == x.tobytes()


def test_normalising_nothing_and_other_types_are_refused():
    with pytest.raises(ZeroVectorError, match="row 1 is all zeros") as caught:
        as_vectors(np.array([[1, 0], [0, 0]]), normalise=True, where="x")
    assert caught.value.row == 1
    for array in (np.array([["a"]]), np.array([[1j]]), np.array([[True]]), np.array([[None]])):
        with pytest.raises(DTypeError):
            as_vectors(array, normalise=False, where="x")


# --- queries ----------------------------------------------------------------------------------------------


def test_queries_from_files_and_bytes(tmp_path):
    np.save(tmp_path / "one.npy", np.arange(3, dtype=np.float16))
    np.save(tmp_path / "many.npy", np.asfortranarray(matrix(4, 3)))
    np.savez(tmp_path / "x.npz", matrix(4, 3))
    (tmp_path / "q.json").write_text("[[1, 2.5], [3, 4]]")
    assert read_vectors(tmp_path / "one.npy").tolist() == [0, 1, 2]
    np.testing.assert_array_equal(read_vectors(tmp_path / "many.npy"), matrix(4, 3))
    np.testing.assert_array_equal(read_vectors(str(tmp_path / "x.npz")), matrix(4, 3))
    assert read_vectors(tmp_path / "q.json").tolist() == [[1, 2.5], [3, 4]]
    assert read_vectors(b" [3, 4] ", normalise=True).tolist() == [np.float32(0.6), np.float32(0.8)]
    assert read_vectors((tmp_path / "one.npy").read_bytes()).shape == (3,)


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"[[]]", b'["a"]', b"[null]", b"[[1, 2], [3]]", b"3", b"[[[1]]]", b"\xff"]
)
def test_bad_queries_are_typed_errors(data):
    with pytest.raises(VecdbError):
        read_vectors(data)
