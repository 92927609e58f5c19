"""Transforms one after the other, and which path of spaces is taken."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fits import data_of, fitted, orthonormal, planted_data, rows_of
from vecdb.errors import ArgumentError, DimensionError, StateError
from vecdb.paths.compose import Chain, compose, fold, nearest_rotation
from vecdb.paths.graph import MAX_EDGES, UNKNOWN, Edge, best_path, paths
from vecdb.paths.rotation import Rotation
from vecdb.testing.planted import unit
from vecdb.transforms.affine import AffineMap, Formula
from vecdb.transforms.bt2 import Bt2Type
from vecdb.transforms.columns import Columns
from vecdb.transforms.mlp import MlpType
from vecdb.transforms.ridge import RidgeType

SEEDS = st.integers(0, 10_000)


def rotation(seed, width=6, role="query"):
    rng = np.random.default_rng(seed)
    data = data_of(rows_of(9, width, rng), rows_of(9, width, rng), role=role)
    W = orthonormal(width, width, rng)
    return AffineMap.of(Formula(W, np.zeros(width), np.zeros(width)), data, isometry="exact")


def plain(seed, d=6, e=6, *, length=0.0, role="query"):
    rng = np.random.default_rng(seed)
    data = data_of(rows_of(9, d, rng), rows_of(9, e, rng), role=role)
    formula = Formula(rng.standard_normal((d, e)), rng.standard_normal(e), rng.standard_normal(e), length)
    return AffineMap.of(formula, data)


def one_after_the_other(parts, rows, normalise=None):
    for place, part in enumerate(parts):
        rows = part.apply(rows)
        if normalise and place < len(normalise) and normalise[place]:
            rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return rows


# --- composing --------------------------------------------------------------------------------------------


@given(SEEDS, st.lists(st.sampled_from([0.0, 0.7]), min_size=1, max_size=3), st.booleans())
def test_a_chain_is_its_parts_one_after_the_other(seed, lengths, between):
    widths = [5, 6, 4, 7]
    parts = [
        plain(seed + place, widths[place], widths[place + 1], length=length) for place, length in enumerate(lengths)
    ]
    normalise = [between] * (len(parts) - 1)
    made = compose(parts, normalise=normalise)
    rows = rows_of(8, 5, np.random.default_rng(seed)).astype(np.float32)
    wanted = one_after_the_other(parts, rows, normalise)
    np.testing.assert_allclose(made.apply(rows), wanted, atol=1e-5 * np.abs(wanted).max())
    assert (made.source_dim, made.target_dim) == (5, widths[len(parts)])
    form = made.affine()
    if form is not None:
        np.testing.assert_allclose(form.apply(rows), wanted, atol=1e-4 * np.abs(wanted).max())
    factors = sum(length > 0 for length in lengths) + between * (len(parts) - 1)
    assert (form is None) == (factors > 1)


def test_one_part_is_itself():
    part = plain(1)
    assert compose([part]) is part


@given(SEEDS, st.integers(2, 5))
def test_rotations_become_one_rotation(seed, count):
    parts = [rotation(seed + place) for place in range(count)]
    made = compose(parts)
    assert isinstance(made, Rotation) and made.isometry == "exact" and made.lipschitz == 1.0
    rows = rows_of(8, 6, np.random.default_rng(seed)).astype(np.float32)
    np.testing.assert_allclose(made.apply(rows), one_after_the_other(parts, rows), atol=1e-5)
    np.testing.assert_allclose(made.inverse().apply(made.apply(rows)), rows, atol=1e-6)


def test_a_thousand_rotations_do_not_drift():
    """A version chain of any length: composed pairwise, the map stays orthogonal and stays right, below 1e-6."""
    made, exact = rotation(0, 32), np.eye(32)
    exact = exact @ made.W.astype(np.float64)
    for seed in range(1, 1000):
        part = rotation(seed % 7, 32)
        made, exact = compose([made, part]), exact @ nearest_rotation(part.W.astype(np.float64))
    W = made.W.astype(np.float64)
    assert np.abs(W @ W.T - np.eye(32)).max() < 1e-6
    rows = rows_of(50, 32, np.random.default_rng(1))
    products = (rows @ W) @ (rows @ W).T
    assert np.abs(products - rows @ rows.T).max() < 1e-6
    assert np.abs(W - exact).max() < 1e-5  # each step rounds the generator to float32


@given(SEEDS, st.floats(1e-8, 1e-3))
def test_a_step_towards_the_nearest_rotation_squares_the_error(seed, size):
    rng = np.random.default_rng(seed)
    W = orthonormal(8, 8, rng) + size * rng.standard_normal((8, 8)) / 8
    before = np.linalg.norm(W.T @ W - np.eye(8), 2)
    after = nearest_rotation(W)
    assert np.linalg.norm(after.T @ after - np.eye(8), 2) <= 2 * before**2 + 1e-14
    U, _, Vt = np.linalg.svd(W)
    assert np.linalg.norm(after - U @ Vt, 2) <= 2 * before**2 + 1e-14


@pytest.mark.parametrize(
    ("parts", "isometry"),
    [
        ([rotation(1), Columns(6, 9)], "semi"),
        ([Columns(6, 9), rotation(1, 9)], "semi"),
        ([Columns(6, 9), Columns(9, 12)], "semi"),
        ([rotation(1), plain(1)], "none"),
        ([Columns(6, 9), Columns(9, 6)], "none"),
        ([Columns(6, 6), Columns(6, 6)], "exact"),
        ([Columns(6, 6), rotation(2)], "exact"),
    ],
)
def test_a_chain_is_what_its_weakest_part_is(parts, isometry):
    assert compose(parts).isometry == isometry


@given(SEEDS)
def test_bounds_are_multiplied(seed):
    parts = [plain(seed), plain(seed + 1), rotation(seed)]
    made = compose(parts)
    np.testing.assert_allclose(made.lipschitz, parts[0].lipschitz * parts[1].lipschitz)
    one, other = (rows_of(40, 6, np.random.default_rng(seed + i)).astype(np.float32) for i in (0, 1))
    far = np.linalg.norm(made.apply(one) - made.apply(other), axis=1)
    assert (far <= made.lipschitz * np.linalg.norm(one - other, axis=1) * 1.001 + 1e-4).all()
    assert compose([plain(seed), plain(seed, length=0.5)]).lipschitz is None
    assert compose([plain(seed), plain(seed + 1)], normalise=[True]).lipschitz is None


def test_isometries_keep_unit_vectors_so_nothing_is_normalised_behind_them():
    made = compose([rotation(1), plain(2)], normalise=[True])
    assert made.lipschitz is not None and made.affine().row_scale is None


def test_the_inverse_goes_back_the_same_way():
    rng = np.random.default_rng(1)
    data = data_of(rows_of(9, 6, rng), rows_of(9, 6, rng))
    parts = [
        AffineMap.of(Formula(orthonormal(6, 6, rng) * s, rng.standard_normal(6), np.zeros(6)), data, reversible=True)
        for s in (0.5, 2.0)
    ]
    made = compose(parts)
    rows = rows_of(7, 6, rng).astype(np.float32)
    np.testing.assert_allclose(made.inverse().apply(made.apply(rows)), rows, atol=1e-5)
    assert compose([parts[0], plain(1, role="gallery")]).inverse() is None
    assert compose(parts, normalise=[True]).inverse() is None


def test_queries_and_stored_vectors_are_not_mapped_by_one_chain():
    with pytest.raises(ArgumentError, match="cannot be composed"):
        compose([plain(1, role="query"), plain(2, role="gallery")])
    assert compose([plain(1, role="query"), rotation(2, role="gallery")]).direction == "query"
    assert compose([Columns(6, 6), plain(2, role="gallery")]).direction == "gallery"
    assert compose([rotation(1, role="query"), rotation(2, role="query")]).direction == "query"
    assert compose([rotation(1, role="query"), rotation(2, role="gallery")]).direction == "both"


@pytest.mark.parametrize(("count", "places"), [(0, None), (2, [True, True]), (2, []), (1, [True])])
def test_places_lie_between_parts(count, places):
    with pytest.raises(ArgumentError):
        compose([plain(seed) for seed in range(count)], normalise=places)


def test_widths_have_to_fit():
    with pytest.raises(DimensionError) as caught:
        compose([plain(1, 6, 5), plain(2, 6, 6)])
    assert (caught.value.expected, caught.value.got) == (5, 6)
    with pytest.raises(DimensionError):
        compose([plain(1), plain(2)]).apply(np.zeros((2, 5), np.float32))


def test_errors_grow_by_the_bounds_of_what_follows():
    rng = np.random.default_rng(1)
    data = planted_data(orthonormal(6, 6, rng), 200, rng, noise=0.5)
    first = fitted(RidgeType(), data, restore="none")
    second = fitted(RidgeType(), planted_data(orthonormal(6, 6, rng), 200, rng, noise=0.5), restore="none")
    made = compose([first, second])
    rows = data.source[:9]
    wanted = second.lipschitz**2 * first.uncertainty(rows) + second.uncertainty(first.apply(rows))
    np.testing.assert_allclose(made.uncertainty(rows), wanted, rtol=1e-5)
    np.testing.assert_allclose(
        compose([rotation(1, role="gallery"), second]).uncertainty(rows),
        second.uncertainty(rotation(1).apply(rows)),
        rtol=1e-4,
    )
    assert compose([first, plain(1, role="gallery")]).uncertainty(rows) is None


def test_a_chain_is_not_stored():
    with pytest.raises(StateError, match="its parts are"):
        compose([plain(1), plain(2)]).state()


def test_the_bias_of_stored_rows_goes_with_their_own_end():
    rng = np.random.default_rng(1)
    data = planted_data(orthonormal(6, 6, rng), 60, rng, role="query")
    joint = fitted(Bt2Type(), data)
    before = compose([rotation(3), joint])
    rows = data.target[:5]
    np.testing.assert_allclose(before.affine().row_bias(rows), joint.affine().row_bias(rows))
    after = compose([joint, Columns(joint.target_dim, joint.target_dim + 1)])
    assert after.affine() is None  # the rows behind the bias are not those of the last space


def test_what_is_no_formula_makes_the_chain_none():
    rng = np.random.default_rng(1)
    data = planted_data(orthonormal(6, 6, rng), 60, rng, role="query", noise=0.3)
    bent = fitted(MlpType(), data, epochs=1)
    assert compose([bent, plain(1)]).affine() is None and compose([plain(1), bent]).affine() is None


@given(SEEDS)
def test_two_row_factors_do_not_fold(seed):
    one, other = plain(seed, length=0.5).affine(), plain(seed + 1, length=0.5).affine()
    assert fold(one, other) is None
    assert fold(plain(seed).affine(), other).row_scale is not None
    assert isinstance(compose([plain(1), plain(2, length=0.5)]), Chain)


# --- paths ------------------------------------------------------------------------------------------------


def edge(name, direction="query", **options):
    source, target = name.split(">")
    return Edge(f"{name}:{direction}", source, target, direction, **options)


def route(path):
    if path is None:
        return None
    marks = [
        [step.start + step.end + ("'" if step.inverted else "") for step in side] for side in (path.query, path.gallery)
    ]
    return " ".join(marks[0]) + " | " + " ".join(marks[1])


def test_the_same_space_needs_no_map():
    found = best_path([edge("a>b")], "a", "a")
    assert (found.edges, found.meets, found.loss) == (0, "a", 0.0)


@pytest.mark.parametrize(
    ("edges", "wanted"),
    [
        ([], None),
        ([edge("b>a")], "ba | "),
        ([edge("a>b", "gallery")], " | ab"),
        ([edge("a>b", "gallery", affine=False)], None),
        ([edge("b>a", "both")], "ba | "),
        ([edge("a>b")], None),  # a map of queries the other way is no path
        ([edge("b>a", "gallery")], None),
        ([edge("b>a", "gallery", isometry="exact")], "ba | "),
        ([edge("a>b", "query", isometry="exact")], "ba' | "),
        ([edge("b>a", "gallery", isometry="semi")], None),
    ],
)
def test_a_single_edge(edges, wanted):
    """A query of b over stored vectors of a."""
    assert route(best_path(edges, "b", "a")) == wanted


def test_direct_edges_win_however_bad_they_are():
    edges = [edge("b>a", retention=0.01), edge("b>c", retention=1.0), edge("c>a", retention=1.0)]
    assert route(best_path(edges, "b", "a")) == "ba | "
    assert route(best_path(edges[1:], "b", "a")) == "bc ca | "


def test_among_direct_edges_the_better_one_is_taken():
    edges = [edge("b>a", retention=0.5), edge("a>b", "gallery", retention=0.6)]
    assert route(best_path(edges, "b", "a")) == " | ab"
    assert route(best_path([edges[0], edge("a>b", "gallery", retention=0.5)], "b", "a")) == "ba | "


def test_queries_and_stored_vectors_may_meet_in_between():
    found = best_path([edge("b>c"), edge("a>c", "gallery")], "b", "a")
    assert route(found) == "bc | ac" and found.meets == "c"


def test_a_path_has_at_most_three_edges():
    chain = [edge("e>d"), edge("d>c"), edge("c>b"), edge("b>a")]
    assert route(best_path(chain, "d", "a")) == "dc cb ba | "
    assert best_path(chain, "e", "a") is None


def test_the_least_expected_loss_decides_among_longer_paths():
    edges = [edge("b>c", retention=0.9), edge("c>a", retention=0.9), edge("b>d", retention=0.95)]
    assert route(best_path([*edges, edge("d>a", retention=0.95)], "b", "a")) == "bd da | "
    assert route(best_path([*edges, edge("d>a", retention=0.80)], "b", "a")) == "bc ca | "
    three = [edge("b>x", retention=0.99), edge("x>y", retention=0.99), edge("y>a", retention=0.99)]
    assert route(best_path([*edges, *three], "b", "a")) == "bx xy ya | "


def test_what_was_never_measured_is_not_taken_for_good():
    assert edge("a>b").loss == -math.log(UNKNOWN)
    assert edge("a>b", retention=1.3).loss == 0.0
    assert math.isfinite(edge("a>b", retention=0.0).loss)


NAMES = "abcd"
EDGES = st.builds(
    lambda pair, direction, isometry, affine, retention: Edge(
        f"{pair}{direction}{isometry}{affine}{retention}", pair[0], pair[1], direction, isometry, affine, retention
    ),
    st.sampled_from(["".join(pair) for pair in itertools.permutations(NAMES, 2)]),
    st.sampled_from(["query", "gallery", "both"]),
    st.sampled_from(["none", "exact"]),
    st.booleans(),
    st.sampled_from([None, 0.3, 0.9]),
)


def every_path(edges, asked, stored):
    """Return loss and edges of every path, by trying all sequences of at most three moves."""

    def moves(side, space):
        for each in edges:
            if each.direction in (side, "both") or each.isometry == "exact":
                if each.source == space:
                    yield each, each.target
                if each.target == space and each.isometry == "exact":
                    yield each, each.source

    def walk(side, space, seen, left):
        yield space, seen, ()
        for each, to in moves(side, space) if left else ():
            if to not in seen:
                for end, visited, rest in walk(side, to, [*seen, to], left - 1):
                    yield end, visited, (each, *rest)

    for here, one, query in walk("query", asked, [asked], 3):
        for there, other, gallery in walk("gallery", stored, [stored], 3):
            apart = len(set(one) & set(other)) == 1
            if here == there and apart and len(query + gallery) <= 3 and all(each.affine for each in gallery):
                yield query, gallery


@settings(max_examples=60)
@given(st.lists(EDGES, max_size=6))
def test_paths_are_all_there_are_and_the_best_is_the_best(edges):
    wanted = list(every_path(edges, "b", "a"))
    found = list(paths(edges, "b", "a"))
    assert len(found) == len(wanted) and all(1 <= path.edges <= MAX_EDGES for path in found)
    best = best_path(edges, "b", "a")
    assert (best is None) == (not wanted)
    if wanted:
        order = [(len(q + g) > 1, sum(each.loss for each in q + g)) for q, g in wanted]
        np.testing.assert_allclose((best.edges > 1, best.loss), min(order))


@given(st.lists(EDGES, max_size=6), st.randoms())
def test_the_choice_does_not_depend_on_the_order_of_the_edges(edges, random):
    turned = list(edges)
    random.shuffle(turned)
    one, other = best_path(edges, "b", "a"), best_path(turned, "b", "a")
    assert (one and [step.edge.key for step in one.query + one.gallery]) == (
        other and [step.edge.key for step in other.query + other.gallery]
    )


def test_a_chosen_path_is_composed():
    """From the graph to a map: two steps of queries, the second an inverted rotation."""
    maps = {"b>c:query": plain(1), "a>c:query": rotation(2)}
    found = best_path([edge("b>c"), edge("a>c", isometry="exact")], "b", "a")
    parts = [maps[step.edge.key].inverse() if step.inverted else maps[step.edge.key] for step in found.query]
    made = compose(parts)
    rows = unit(np.random.default_rng(1).standard_normal((5, 6)))
    wanted = maps["b>c:query"].apply(rows) @ maps["a>c:query"].W.T
    np.testing.assert_allclose(made.apply(rows), wanted, atol=1e-4)
