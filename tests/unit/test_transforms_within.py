"""Kinds for one space with itself (whiten, pca, abtt, nullspace, hadamard) and for one hub (simplex, relative)."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fits import data_of, fitted, orthonormal, rows_of
from vecdb.errors import CancelledError, CorruptionError, FitError, NonFiniteError
from vecdb.testing.planted import unit
from vecdb.transforms.hadamard import HadamardType, equalising_rotation, hadamard_matrix
from vecdb.transforms.nullspace import NullspaceType, classifier
from vecdb.transforms.relative import RelativeType, farthest_first
from vecdb.transforms.simplex import SimplexType, simplex_vertices
from vecdb.transforms.spectral import AbttType, PcaType, WhitenType, spectrum_of

WHITEN, PCA, ABTT, NULLSPACE, HADAMARD = WhitenType(), PcaType(), AbttType(), NullspaceType(), HadamardType()
SIMPLEX, RELATIVE = SimplexType(), RelativeType()
SEEDS = st.integers(0, 10_000)


def stretched(seed, count=200, width=6):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, width)) * np.geomspace(2, 0.2, width) @ orthonormal(width, width, rng) + 0.7


def inside(X, width=None, **options):
    """Return data whose target is the space itself, or a narrower one."""
    return data_of(X, np.zeros((0, width or X.shape[1])), **options)


def covariance(rows):
    return np.cov(rows.astype(np.float64), rowvar=False, bias=True)


# --- spectra ----------------------------------------------------------------------------------------------


@given(SEEDS, st.booleans(), st.sampled_from([0.0, 1.0]))
def test_a_spectrum_is_that_of_the_weighted_covariance(seed, center, zipf):
    X = stretched(seed, 30, 4)
    weights = np.array([(i + 1) ** -zipf for i in range(30)])
    mean = (weights[:, None] * X).sum(0) / weights.sum() if center else np.zeros(4)
    C = sum(w * np.outer(x - mean, x - mean) for w, x in zip(weights, X, strict=True)) / weights.sum()
    found = spectrum_of(X, center=center, zipf=zipf)
    np.testing.assert_allclose(found.mean, mean, atol=1e-12)
    np.testing.assert_allclose(found.axes @ np.diag(found.values) @ found.axes.T, C, atol=1e-10)
    assert (np.diff(found.values) <= 1e-12).all()


def test_the_signs_of_axes_do_not_depend_on_the_decomposition():
    X = stretched(1)
    one, other = spectrum_of(X), spectrum_of(-X)
    np.testing.assert_allclose(one.axes, other.axes, atol=1e-9)


@given(SEEDS, st.booleans(), st.sampled_from([6, 4]))
def test_whitened_rows_have_the_identity_as_their_covariance(seed, rotate, width):
    X = stretched(seed)
    made = fitted(WHITEN, inside(X, width), shrink=0.0, rotate=rotate)
    mapped = made.apply(X.astype(np.float32))
    np.testing.assert_allclose(mapped.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(covariance(mapped), np.eye(width), atol=1e-3)
    assert made.direction == "both"


@given(SEEDS)
def test_whitening_without_rotation_stays_as_near_as_it_can(seed):
    """Of all whitenings the symmetric one moves the (centred) rows least."""
    X = stretched(seed)
    data, away = inside(X), X - X.mean(0)
    made = fitted(WHITEN, data, shrink=0.0)
    np.testing.assert_allclose(made.W, made.W.T, atol=1e-5)
    moved = np.sum((made.apply(data.source) - away) ** 2)
    turned = fitted(WHITEN, data, shrink=0.0, rotate=True).apply(data.source)
    assert moved <= np.sum((turned - away) ** 2) + 1e-3


def test_frequent_rows_count_more():
    X = stretched(3)
    made = fitted(WHITEN, inside(X), shrink=0.0, zipf=1.0)
    mapped = made.apply(X.astype(np.float32)).astype(np.float64)
    weights = 1 / np.arange(1.0, 201)
    C = (mapped.T * weights) @ mapped / weights.sum()
    np.testing.assert_allclose(C, np.eye(6), atol=1e-3)
    assert np.abs(covariance(mapped) - np.eye(6)).max() > 0.05


def test_directions_without_variance_cannot_be_whitened_without_shrinking():
    X = stretched(3)
    X[:, 5] = X[:, 4]
    with pytest.raises(FitError, match="1 of 6 columns without variance") as caught:
        fitted(WHITEN, inside(X), shrink=0.0)
    assert caught.value.needed == 7
    assert np.isfinite(fitted(WHITEN, inside(X)).apply(X.astype(np.float32))).all()


@given(SEEDS)
def test_whitening_is_undone(seed):
    X = stretched(seed).astype(np.float32)
    made = fitted(WHITEN, inside(X))
    np.testing.assert_allclose(made.inverse().apply(made.apply(X)), X, atol=1e-4)
    assert made.inverse().direction == "both"
    assert fitted(WHITEN, inside(X, 4)).inverse() is None


@given(SEEDS, st.integers(1, 6), st.booleans())
def test_no_other_projection_of_that_width_keeps_more(seed, width, center):
    X = stretched(seed)
    made = fitted(PCA, inside(X, width), center=center)
    W = made.W.astype(np.float64)
    np.testing.assert_allclose(W.T @ W, np.eye(width), atol=1e-5)
    away = X - X.mean(0) if center else X
    kept = np.sum((away @ W) ** 2)
    rng = np.random.default_rng(seed)
    for _ in range(10):
        assert np.sum((away @ orthonormal(6, width, rng)) ** 2) <= kept * (1 + 1e-6)
    assert made.isometry == ("exact" if width == 6 and not center else "none")


@given(SEEDS, st.integers(1, 5))
def test_the_leading_components_are_gone_and_the_others_stay(seed, removed):
    X = stretched(seed)
    made = fitted(ABTT, inside(X), components=removed)
    mapped = made.apply(X.astype(np.float32)).astype(np.float64)
    before, after = (np.sort(np.linalg.eigvalsh(covariance(each)))[::-1] for each in (X, mapped))
    np.testing.assert_allclose(after[: 6 - removed], before[removed:], rtol=1e-3)
    np.testing.assert_allclose(after[6 - removed :], 0, atol=1e-5)
    assert made.inverse() is None and made.lipschitz <= 1 + 1e-6


def test_how_many_components_are_removed():
    X = np.random.default_rng(1).standard_normal((50, 250))
    ranks = [np.linalg.matrix_rank(fitted(ABTT, inside(X), components=c).W, tol=1e-4) for c in (0, 5)]
    assert ranks == [248, 245]
    with pytest.raises(FitError, match="250 of 250"):
        fitted(ABTT, inside(X), components=250)


@pytest.mark.parametrize("kind", [WHITEN, PCA, ABTT, HADAMARD], ids=lambda kind: kind.name)
def test_a_space_without_rows_has_no_covariance(kind):
    for rows in (0, 1, 2):
        with pytest.raises(FitError) as caught:
            fitted(kind, inside(stretched(1)[:rows]))
        assert (caught.value.pairs, caught.value.needed) == (rows, 3)
    with pytest.raises(FitError, match="the same vector"):
        fitted(kind, inside(np.ones((20, 6))))
    spoilt = stretched(1)
    spoilt[2, 2] = np.nan
    with pytest.raises(NonFiniteError):
        fitted(kind, inside(spoilt))


# --- hadamard ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 4, 8, 12, 16, 20, 24, 32, 44, 48, 60, 64, 96, 128, 144, 256, 384, 512, 768])
def test_hadamard_matrices_are_what_they_are_called(size):
    H = hadamard_matrix(size)
    np.testing.assert_allclose(np.abs(H), 1 / np.sqrt(size), atol=1e-12)
    np.testing.assert_allclose(H @ H.T, np.eye(size), atol=1e-9)


@pytest.mark.parametrize("size", [3, 5, 6, 7, 10, 25, 50, 100, 300, 301])
def test_where_none_is_constructed_none_is_returned(size):
    found = hadamard_matrix(size)
    assert found is None or size % 4 == 0


@pytest.mark.parametrize("size", [384, 768, 1024, 1280, 1536])
def test_the_widths_of_common_models_have_one(size):
    assert hadamard_matrix(size) is not None


@given(st.integers(2, 12), SEEDS)
def test_plane_rotations_give_every_axis_the_mean_variance(width, seed):
    variances = np.random.default_rng(seed).gamma(0.5, 1.0, width)
    H = equalising_rotation(variances)
    np.testing.assert_allclose(H @ H.T, np.eye(width), atol=1e-9)
    np.testing.assert_allclose(np.diag(H.T @ np.diag(variances) @ H), variances.mean(), atol=1e-9)


def test_equal_variances_need_no_rotation():
    np.testing.assert_array_equal(equalising_rotation(np.ones(5)), np.eye(5))
    np.testing.assert_array_equal(equalising_rotation(np.zeros(5)), np.eye(5))


@given(SEEDS, st.sampled_from([5, 6, 8, 12]))
def test_standardised_axes_have_variance_one_and_distances_one_factor(seed, width):
    X = stretched(seed, 100, width)
    made = fitted(HADAMARD, inside(X))
    mapped = made.apply(X.astype(np.float32)).astype(np.float64)
    np.testing.assert_allclose(np.diag(covariance(mapped)), 1, atol=1e-3)
    one, other = rows_of(20, width, np.random.default_rng(seed)), rows_of(20, width, np.random.default_rng(seed + 1))
    before = np.linalg.norm(one - other, axis=1)
    after = np.linalg.norm(made.apply(one.astype("f4")) - made.apply(other.astype("f4")), axis=1)
    np.testing.assert_allclose(after / before, 1 / made.fit["deviation"], rtol=1e-3)
    np.testing.assert_allclose(made.inverse().apply(mapped.astype("f4")), X, atol=1e-3)
    assert made.fit["by"] == ("hadamard" if width in (8, 12) else "plane rotations")


def test_without_centre_and_factor_it_is_a_rotation():
    X = stretched(1, 100, 8)
    assert fitted(HADAMARD, inside(X), center=False, rescale=False).isometry == "exact"
    for params in ({"center": False}, {"rescale": False}, {}):
        assert fitted(HADAMARD, inside(X), **params).isometry == "none"


# --- nullspace --------------------------------------------------------------------------------------------


def labelled(seed, classes=3, width=10, count=300, strength=2.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    axes = orthonormal(classes, width, rng)
    return rng.standard_normal((count, width)) + strength * axes[labels], labels, axes


def hits(rows, labels):
    return classifier(rows.astype(np.float64), labels)[1]


@given(SEEDS, st.integers(2, 4))
def test_after_the_projection_the_class_can_no_longer_be_told(seed, classes):
    X, labels, _ = labelled(seed, classes)
    made = fitted(NULLSPACE, inside(X, labels=labels))
    guess = np.bincount(labels).max() / len(labels)
    assert hits(X, labels) > guess + 0.15
    assert hits(made.apply(X.astype(np.float32)), labels) < guess + 0.12
    P = made.W.astype(np.float64)
    np.testing.assert_allclose(P, P.T, atol=1e-6)
    np.testing.assert_allclose(P @ P, P, atol=1e-5)
    assert np.linalg.matrix_rank(P, tol=1e-4) == 10 - made.fit["removed"]
    assert made.isometry == "none" and made.inverse() is None and made.direction == "both"


def test_mapping_the_queries_alone_is_enough():
    X, labels, _ = labelled(1)
    made = fitted(NULLSPACE, inside(X, labels=labels))
    rows = X.astype(np.float32)
    np.testing.assert_allclose(made.apply(rows) @ rows.T, made.apply(rows) @ made.apply(rows).T, atol=1e-3)


def test_so_many_directions_stay_as_asked_for():
    X, labels, _ = labelled(1, classes=6, strength=3.0)
    for keep, most in ((0.9, 1), (0.7, 3), (0.0, 9), (1.0, 0)):
        assert fitted(NULLSPACE, inside(X, labels=labels), keep=keep).fit["removed"] <= most


def test_unknown_labels_are_left_out():
    X, labels, _ = labelled(1)
    spoilt = np.concatenate([X, 50 * np.ones((20, 10))])
    unknown = np.concatenate([labels, np.full(20, -3)])
    one, other = fitted(NULLSPACE, inside(X, labels=labels)), fitted(NULLSPACE, inside(spoilt, labels=unknown))
    np.testing.assert_allclose(one.W, other.W, atol=1e-6)


def test_a_class_that_cannot_be_told_takes_nothing_away():
    rng = np.random.default_rng(1)
    labels = (rng.random(4000) < 0.3).astype(np.int64)
    made = fitted(NULLSPACE, inside(rng.standard_normal((4000, 4)), labels=labels))
    assert made.fit["removed"] == 0
    np.testing.assert_allclose(made.W, np.eye(4), atol=1e-6)


@pytest.mark.parametrize("kind", [NULLSPACE, SIMPLEX], ids=lambda kind: kind.name)
@pytest.mark.parametrize(("labels", "classes"), [(None, 0), (np.full(300, -1), 0), (np.zeros(300, int), 1)])
def test_one_class_is_none(kind, labels, classes):
    with pytest.raises(FitError) as caught:
        fitted(kind, inside(labelled(1)[0], labels=labels))
    assert (caught.value.pairs, caught.value.needed) == (classes, 2)


def test_rounds_can_be_cancelled():
    X, labels, _ = labelled(1)
    asked = itertools.count()
    with pytest.raises(CancelledError, match="after 1 of 10"):
        fitted(NULLSPACE, inside(X, labels=labels, cancel=lambda: next(asked) >= 2))


# --- simplex ----------------------------------------------------------------------------------------------


@given(st.integers(1, 30))
def test_vertices_are_equally_far_from_each_other(width):
    V = simplex_vertices(width)
    wanted = np.full((width + 1, width + 1), -1 / width)
    np.fill_diagonal(wanted, 1)
    np.testing.assert_allclose(V @ V.T, wanted, atol=1e-12)
    np.testing.assert_allclose(V.sum(0), 0, atol=1e-9)


@settings(max_examples=20)
@given(SEEDS, st.sampled_from(["ridge", "procrustes"]), st.sampled_from([8, 10, 14]))
def test_two_models_are_compared_on_the_vertices_of_their_classes(seed, base, hub):
    """The same records in two models that share nothing else find their class through the hub."""
    X, labels, _ = labelled(seed, classes=5, strength=4.0)
    other = X @ np.random.default_rng(seed).standard_normal((10, 12))
    hub_rows = [
        fitted(SIMPLEX, inside(rows, hub, labels=labels), base=base).apply(rows.astype(np.float32))
        for rows in (X, other)
    ]
    best = (unit(hub_rows[0]) @ unit(hub_rows[1]).T).argmax(1)
    assert (labels[best] == labels).mean() > (0.9 if base == "ridge" else 0.5)


def test_a_rotation_onto_the_vertices_is_an_isometry_where_the_widths_allow():
    X, labels, _ = labelled(1, classes=5)
    for hub, isometry in ((10, "exact"), (12, "semi"), (6, "none")):
        assert fitted(SIMPLEX, inside(X, hub, labels=labels), base="procrustes").isometry == isometry
    assert fitted(SIMPLEX, inside(X, 10, labels=labels)).isometry == "none"


def test_more_classes_than_vertices_are_refused():
    X, labels, _ = labelled(1, classes=5)
    assert fitted(SIMPLEX, inside(X, 4, labels=labels)).target_dim == 4
    with pytest.raises(FitError, match="class 4 in a target of 3 columns, which has 4 vertices") as caught:
        fitted(SIMPLEX, inside(X, 3, labels=labels))
    assert (caught.value.pairs, caught.value.needed) == (5, 4)


def test_classes_keep_their_vertex_when_others_join():
    X, labels, _ = labelled(1, classes=4, strength=6.0)
    few = np.where(labels < 3, labels, -1)
    rows = X.astype(np.float32)
    for known in (labels, few):
        mapped = fitted(SIMPLEX, inside(X, 10, labels=known)).apply(rows)
        assert ((unit(mapped) @ simplex_vertices(10).T).argmax(1)[labels < 3] == labels[labels < 3]).mean() > 0.9


# --- relative ---------------------------------------------------------------------------------------------


@given(SEEDS, st.booleans(), st.sampled_from(["farthest", "random"]), st.integers(3, 12))
def test_a_vector_becomes_its_cosines_with_the_anchors(seed, center, pick, count):
    rng = np.random.default_rng(seed)
    X, Y = rows_of(30, 5, rng), rows_of(30, 7, rng)
    data = data_of(X, Y, seed=seed)
    made = fitted(RELATIVE, data, anchors=count, whiten=False, center=center, pick=pick)
    chosen = farthest_first(X, count) if pick == "farthest" else np.random.default_rng(seed).permutation(30)[:count]
    for fit_rows_, fitted_side in ((X, made), (Y, made.companion())):
        anchors = fit_rows_[chosen]
        middle = anchors.mean(0) if center else 0 * anchors[0]
        row = rng.standard_normal(fit_rows_.shape[1]).astype(np.float32)
        wanted = [
            (row - middle) @ (a - middle) / (np.linalg.norm(row - middle) * np.linalg.norm(a - middle)) for a in anchors
        ]
        np.testing.assert_allclose(fitted_side.apply(row[None])[0], wanted, atol=1e-4)
    assert made.target_dim == count and made.companion().companion().mine is made.mine


@given(SEEDS, st.booleans())
def test_rotated_models_meet_without_being_rotated(seed, whiten):
    """The paper's claim: relative representations do not change under rotations of either model."""
    rng = np.random.default_rng(seed)
    X = rows_of(40, 6, rng)
    made = fitted(RELATIVE, data_of(X, X @ orthonormal(6, 6, rng)), whiten=whiten)
    again = fitted(RELATIVE, data_of(X, X), whiten=whiten)
    rows = rows_of(10, 6, rng).astype(np.float32)
    np.testing.assert_allclose(made.apply(rows), again.apply(rows), atol=1e-4)


def test_whitened_by_their_gram_matrix_anchors_are_orthonormal_axes():
    rng = np.random.default_rng(1)
    X = rows_of(40, 8, rng)
    made = fitted(RELATIVE, data_of(X, X), anchors=5, center=False)
    W = made.mine.W.astype(np.float64)
    np.testing.assert_allclose(W.T @ W, np.eye(5), atol=1e-5)
    more = fitted(RELATIVE, data_of(X, X), anchors=20, center=False)
    W = more.mine.W.astype(np.float64)
    np.testing.assert_allclose(W @ W.T, np.eye(8), atol=1e-5)  # more anchors than columns: cosines are kept


def test_there_are_never_more_anchors_than_pairs():
    rng = np.random.default_rng(1)
    X = rows_of(9, 12, rng)
    assert fitted(RELATIVE, data_of(X, X)).target_dim == 9
    assert fitted(RELATIVE, data_of(X, X), anchors=4).target_dim == 4


@given(SEEDS, st.integers(1, 12))
def test_farthest_first_takes_the_farthest_each_time(seed, count):
    rows = np.random.default_rng(seed).standard_normal((12, 3))
    found = farthest_first(rows, count).tolist()
    chosen = [max(range(12), key=lambda i: np.linalg.norm(rows[i] - rows.mean(0)))]
    while len(chosen) < count:
        rest = [i for i in range(12) if i not in chosen]
        chosen.append(max(rest, key=lambda i: min(np.linalg.norm(rows[i] - rows[j]) for j in chosen)))
    assert found == chosen


def test_a_query_side_map_has_a_gallery_side_companion():
    rng = np.random.default_rng(1)
    X, Y = rows_of(20, 5, rng), rows_of(20, 7, rng)
    for role, other in (("query", "gallery"), ("gallery", "query")):
        made = fitted(RELATIVE, data_of(X, Y, role=role))
        assert (made.direction, made.companion().direction) == (role, other)


def test_sides_with_different_anchors_are_refused():
    rng = np.random.default_rng(1)
    X, Y = rows_of(20, 5, rng), rows_of(20, 7, rng)
    state = fitted(RELATIVE, data_of(X, Y)).state()
    other = fitted(RELATIVE, data_of(X, Y), anchors=4).state()
    with pytest.raises(CorruptionError, match="other anchors"):
        RELATIVE.load({**state, "other_W": other["other_W"]})
