"""The rules of the transform contract as checks; docs/reference/transform-contract.md numbers them as here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.contracts import Affine, FitData
from vecdb.contracts.transform import DIRECTIONS, ISOMETRIES
from vecdb.errors import ArgumentError, DimensionError, FitError
from vecdb.testing import fitting, planted
from vecdb.testing.checks import Check, applying, collect, require, rule

__all__ = ["iter_transform_checks"]

Matrix = npt.NDArray[np.float32]
_METHODS = ("apply", "affine", "inverse", "companion", "uncertainty", "state")
_ASKED = ("queries", "queries_across")
_OPTIONAL = (*_ASKED, "stored", "labels", "groups", "validation")
_CLOSE = 2e-5
"""Of float32 sums of a few terms near 1."""


def _able(name: str) -> Any:
    return lambda thing: bool(getattr(thing.capabilities, name))


def _needs_pairs(thing: Any) -> bool:
    return "pairs" in thing.capabilities.requires


def _data(thing: Any, **changes: Any) -> FitData:
    """Return a planted problem of the first width and role that a type declares, large enough for it."""
    able = thing.capabilities
    width = changes.pop("width", None) or next(each for each in planted.WIDTHS_OF if each in able.widths)
    role = changes.pop("role", None) or min(able.directions)
    return planted.pairs(width, role, **{"count": max(240, 2 * able.min_pairs), **changes})


def _fits(thing: Any, **changes: Any) -> Iterator[tuple[str, Any]]:
    """Yield a transform for each declared width, and for each choice of the parameters, with words for it."""
    for width in (each for each in planted.WIDTHS_OF if each in thing.capabilities.widths):
        for number, params in enumerate(fitting.variants(thing)):
            try:
                fitted = thing.fit(_data(thing, width=width, **changes), params)
            except FitError:
                if number == 0:
                    raise
                continue  # a choice that does not suit these widths
            yield f"fitted to {width} widths with {params}", fitted


def _default(thing: Any, **changes: Any) -> Any:
    return thing.fit(_data(thing, **changes), fitting.defaults(thing))


def _rows(count: int, width: int, seed: int = 5) -> Matrix:
    """Return unit vectors that no fit has seen, read-only."""
    return planted.read_only(planted.unit(np.random.default_rng(seed).standard_normal((count, width))))


def _far(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """Return the largest difference, relative to the largest number where that is above 1."""
    if not one.size:
        return 0.0
    scale = max(1.0, float(np.abs(other).max()))
    return float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max()) / scale


# --- D: what it says of itself ----------------------------------------------------------------------------


@rule("D1")
def check_transform_descriptor(thing: Any) -> None:
    """Name, version, capabilities and parameters are what the contract names, and known values."""
    fitting.check_descriptor("transform", thing)


# --- F: fitting -------------------------------------------------------------------------------------------


@rule("F1")
def check_fit_returns_a_transform(thing: Any) -> None:
    """`fit` returns an object with all methods and attributes of `Transform`, of the widths of its data."""
    for width in (each for each in planted.WIDTHS_OF if each in thing.capabilities.widths):
        data = _data(thing, width=width)
        fitted = thing.fit(data, fitting.defaults(thing))
        missing = [name for name in _METHODS if not callable(getattr(fitted, name, None))]
        require(not missing, f"the transform has no method {missing and missing[0]}")
        source, target = data.source.shape[1], data.target.shape[1]
        require(fitted.source_dim == source, f"source_dim is {fitted.source_dim!r}, expected {source}")
        wanted = fitted.target_dim if thing.capabilities.joint else target
        require(
            fitted.target_dim == wanted and isinstance(fitted.target_dim, int),
            f"target_dim is {fitted.target_dim!r}, expected {wanted}; a space of another width is declared by joint",
        )
        require(fitted.isometry in ISOMETRIES, f"isometry is {fitted.isometry!r}, expected one of {ISOMETRIES}")
        bound = fitted.lipschitz
        require(bound is None or (isinstance(bound, float) and 0 <= bound < np.inf), f"lipschitz is {bound!r}")


@rule("F2")
def check_fit_leaves_its_data_alone(thing: Any) -> None:
    """`fit` reads its data only: they are read-only, and what it keeps of them are copies."""
    data = _data(thing)
    lent = {name: np.array(getattr(data, name)) for name in ("source", "target", "queries", "labels", "groups")}
    views: dict[str, Any] = {name: array.view() for name, array in lent.items()}
    for view in views.values():
        view.flags.writeable = False
    fitted = thing.fit(replace(data, **views), fitting.defaults(thing))
    changed = [name for name, array in lent.items() if not np.array_equal(array, getattr(data, name))]
    require(not changed, f"{', '.join(changed)} of its data changed during the fit")
    rows = _rows(5, fitted.source_dim)
    before = fitted.apply(rows)
    for array in lent.values():
        array[...] = 0
    require(np.array_equal(before, fitted.apply(rows)), "it changes when the data it was fitted on do")


@rule("F3", lambda thing: _needs_pairs(thing) and thing.capabilities.min_pairs > 0)
def check_fit_refuses_too_few_pairs(thing: Any) -> None:
    """With fewer pairs than `min_pairs`, `fit` raises `FitError` with `pairs` and `needed`; with so many it fits."""
    least = thing.capabilities.min_pairs
    _default(thing, count=least)
    fitting.too_few(lambda: _default(thing, count=least - 1), f"a fit on {least - 1} pairs where min_pairs is {least}")


@rule("F4", lambda thing: _needs_pairs(thing) and thing.capabilities.min_pairs > 1)
def check_fit_refuses_pairs_that_say_the_same(thing: Any) -> None:
    """Many pairs that are all the same one (or, from `min_pairs` 3 on, lie on one line) are too few: `FitError`."""
    data = planted.collinear(_data(thing), both_ways=thing.capabilities.min_pairs > 2)
    fitting.too_few(lambda: thing.fit(data, fitting.defaults(thing)), "a fit on pairs that all lie on one line")


@rule("F5", _needs_pairs)
def check_fit_refuses_nan(thing: Any) -> None:
    """A NaN or an infinity in the pairs is refused (`NonFiniteError`, `FitError`), never fitted."""
    data = _data(thing)
    for side in ("source", "target"):
        for number in (np.nan, np.inf):
            spoilt = np.array(getattr(data, side))
            spoilt[3, 1] = number
            changes: dict[str, Any] = {side: planted.read_only(spoilt)}
            broken = replace(data, **changes)
            fitting.refuses(
                lambda broken=broken: thing.fit(broken, fitting.defaults(thing)),  # type: ignore[misc]
                f"{number} in {side}",
                ArgumentError,
            )


@rule("F6", _able("deterministic"))
def check_fit_is_deterministic(thing: Any) -> None:
    """The same data, parameters and seed give the same state."""
    fitting.fits_alike(lambda: _default(thing))


@rule("F7")
def check_fit_uses_its_own_generator(thing: Any) -> None:
    """Randomness comes from `FitData.rng`: the generators that a process shares are neither drawn from nor seeded."""
    fitting.leaves_random_state(lambda: _default(thing))


@rule("F8")
def check_fit_can_be_cancelled(thing: Any) -> None:
    """`fit` asks `FitData.cancel` at least once, and raises `CancelledError` when told to stop."""
    data = replace(_data(thing), cancel=lambda: True)
    fitting.cancels(lambda: thing.fit(data, fitting.defaults(thing)))


@rule("F9")
def check_fit_knows_its_roles(thing: Any) -> None:
    """A transform is of the direction that it was fitted for, or of both."""
    for role in sorted(thing.capabilities.directions):
        fitted = _default(thing, role=role)
        require(fitted.direction in DIRECTIONS, f"direction is {fitted.direction!r}, expected one of {DIRECTIONS}")
        require(
            fitted.direction in (role, "both"), f"fitted for the role {role!r} its direction is {fitted.direction!r}"
        )


@rule("F10", lambda thing: "labels" in thing.capabilities.requires)
def check_fit_takes_unknown_labels(thing: Any) -> None:
    """Labels below zero mean that the class is not known; a fit on pairs of which some are so succeeds."""
    data = _data(thing)
    labels = np.array(data.labels)
    labels[::5] = -1
    thing.fit(replace(data, labels=planted.read_only(labels)), fitting.defaults(thing))


@rule("F11")
def check_fit_takes_what_there_is(thing: Any) -> None:
    """A fit does without each part of `FitData` that may be None and is not required, and without all of them."""
    needs = thing.capabilities.requires
    rest = {name: None for name in _OPTIONAL if name not in needs and not (name in _ASKED and "queries" in needs)}
    for gone in ({}, *({name: None} for name in rest), rest):
        changes: dict[str, Any] = gone if "queries" not in gone else {**gone, "queries_across": None}
        fitted = thing.fit(replace(_data(thing), **changes), fitting.defaults(thing))
        rows = _rows(3, fitted.source_dim)
        require(
            np.isfinite(fitted.apply(rows)).all(), f"fitted without {', '.join(changes) or 'nothing'} it is not finite"
        )


# --- M: mapping -------------------------------------------------------------------------------------------


@rule("M1")
def check_map_returns_new_finite_rows(thing: Any) -> None:
    """`apply` returns new finite float32 rows of `target_dim` columns, also for no row and for one."""
    for words, fitted in _fits(thing):
        for count in (0, 1, 7):
            rows = _rows(count, fitted.source_dim)
            mapped = fitted.apply(rows)
            require(isinstance(mapped, np.ndarray), f"apply returned {type(mapped).__name__} ({words})")
            require(mapped.dtype == np.float32, f"apply returned {mapped.dtype}, expected float32 ({words})")
            wanted = (count, fitted.target_dim)
            require(mapped.shape == wanted, f"apply returned shape {mapped.shape}, expected {wanted} ({words})")
            require(np.isfinite(mapped).all(), f"apply returned numbers that are not finite ({words})")
            require(not np.shares_memory(mapped, rows), f"apply returned its input ({words})")


@rule("M2")
def check_map_refuses_other_widths(thing: Any) -> None:
    """Rows of another width raise `DimensionError`."""
    fitted = _default(thing)
    for width in (fitted.source_dim + 1, fitted.source_dim - 1):
        fitting.refuses(
            lambda width=width: fitted.apply(_rows(3, width)),  # type: ignore[misc]
            f"apply with {width} columns instead of {fitted.source_dim}",
            DimensionError,
        )


@rule("M3")
def check_map_leaves_its_input_alone(thing: Any) -> None:
    """`apply` takes read-only rows and does not change them."""
    fitted = _default(thing)
    lent = np.array(_rows(6, fitted.source_dim))
    view = lent.view()
    view.flags.writeable = False
    before = lent.copy()
    fitted.apply(view)
    require(np.array_equal(before, lent), "apply changed the rows it was given")


@rule("M4", _able("row_wise"))
def check_map_takes_each_row_by_itself(thing: Any) -> None:
    """With `row_wise`, a row is mapped to the same vector whatever rows stand beside it, in whatever order."""
    for words, fitted in _fits(thing):
        rows = _rows(9, fitted.source_dim)
        together = fitted.apply(rows)
        alone = np.concatenate([fitted.apply(rows[place : place + 1]) for place in range(len(rows))])
        require(_far(alone, together) <= _CLOSE, f"a row alone is mapped to another vector than in company ({words})")
        order = np.array([8, 0, 3, 7, 1, 2, 6, 5, 4])
        turned = fitted.apply(planted.read_only(rows[order]))
        require(_far(turned, together[order]) <= _CLOSE, f"the order of the rows matters ({words})")


@rule("M5")
def check_map_never_changes(thing: Any) -> None:
    """Applied again a transform gives the same, and its state stays the same."""
    fitted = _default(thing)
    rows, digest = _rows(6, fitted.source_dim), fitting.digest(fitted)
    first = fitted.apply(rows)
    fitted.apply(_rows(50, fitted.source_dim, seed=9))
    require(np.array_equal(first, fitted.apply(rows)), "the same rows are mapped differently the second time")
    require(digest == fitting.digest(fitted), "applying it changes its state")


# --- C: claims against behaviour --------------------------------------------------------------------------


@rule("C1")
def check_claims_of_the_type_hold_for_every_fit(thing: Any) -> None:
    """Every fit is at least the isometry, and has the affine form and the inverse, that the type promises."""
    able = thing.capabilities
    for words, fitted in _fits(thing):
        least = ISOMETRIES.index(able.isometry)
        require(
            ISOMETRIES.index(fitted.isometry) >= least,
            f"isometry {able.isometry!r} is promised, but it is {fitted.isometry!r} {words}",
        )
        require(not able.affine or fitted.affine() is not None, f"an affine form is promised, there is none {words}")
        square = fitted.source_dim == fitted.target_dim
        require(
            not able.invertible or not square or fitted.inverse() is not None,
            f"an inverse is promised, there is none {words}",
        )


@rule("C2")
def check_isometry_keeps_inner_products(thing: Any) -> None:
    """A transform that says "semi" or "exact" keeps all inner products; "exact" needs equal widths, too."""
    for words, fitted in _fits(thing, shift=0.3):
        if fitted.isometry == "none":
            continue
        rows = planted.read_only(3 * _rows(40, fitted.source_dim, seed=8))
        mapped = fitted.apply(rows).astype(np.float64)
        far = _far(mapped @ mapped.T, rows.astype(np.float64) @ rows.T.astype(np.float64))
        require(far <= 1e-4, f"inner products change by {far:.1e} of their size, isometry {fitted.isometry!r} {words}")
        square = fitted.source_dim == fitted.target_dim
        require(fitted.isometry != "exact" or square, f"isometry 'exact' between different widths {words}")


@rule("C3")
def check_inverse_undoes(thing: Any) -> None:
    """`inverse` undoes `apply` and is undone by it, up to rounding; what cannot be undone has none."""
    for words, fitted in _fits(thing, shift=0.3):
        back = fitted.inverse()
        if back is None:
            continue
        rows, others = _rows(30, fitted.source_dim), _rows(30, fitted.target_dim, seed=6)
        far = _far(back.apply(planted.read_only(fitted.apply(rows))), rows)
        require(far <= 1e-3, f"inverse(f(x)) is {far:.1e} away from x {words}")
        far = _far(fitted.apply(planted.read_only(back.apply(others))), others)
        require(far <= 1e-3, f"f(inverse(y)) is {far:.1e} away from y {words}")


@rule("C4", lambda thing: thing.capabilities.isometry != "none" and _needs_pairs(thing))
def check_planted_rotation_is_recovered(thing: Any) -> None:
    """Fitted on a pure rotation, a type that promises an isometry maps vectors that it has not seen as that does."""
    for width in (each for each in ("equal", "wider") if each in thing.capabilities.widths):
        d, e = planted.WIDTHS_OF[width]
        fitted = _default(thing, width=width, seed=3)
        rows = _rows(50, d)
        wanted = rows.astype(np.float64) @ planted.rotation(d, e, 0.9, 3)
        far = _far(fitted.apply(rows)[:, :e], wanted)
        require(far <= 1e-3, f"the planted rotation to {width} widths is missed by {far:.2f}")


@rule("C5", lambda thing: _needs_pairs(thing) and not thing.capabilities.joint)
def check_direction_is_from_source_to_target(thing: Any) -> None:
    """It maps from the source to the target: mapped vectors that it has not seen are nearer to their partners."""
    for width in (each for each in planted.WIDTHS_OF if each in thing.capabilities.widths):
        for role in sorted(thing.capabilities.directions):
            data = _data(thing, width=width, role=role, shift=0.6, angle=0.5)
            kept: Any = data.validation
            mapped = thing.fit(data, fitting.defaults(thing)).apply(kept.source)
            found, error = _found(mapped, kept.target), _error(mapped, kept.target)
            words = f"fitted to {width} widths for the role {role!r}, {found:.0%} of new vectors find their partner"
            if width != "equal":
                require(found >= 0.3, words)
                continue
            before, start = _found(kept.source, kept.target), _error(kept.source, kept.target)
            better = found >= before + 0.1 or error <= 0.9 * start
            require(better, f"{words}, {before:.0%} without it; distance {error:.2f}, without it {start:.2f}")


def _found(mapped: Matrix, target: Matrix) -> float:
    """Return the share of rows whose own partner is the most similar one."""
    best = np.argmax(planted.unit(mapped.astype(np.float64)) @ target.T, axis=1)
    return float(np.mean(best == np.arange(len(target))))


def _error(mapped: Matrix, target: Matrix) -> float:
    return float(np.mean(np.linalg.norm(mapped.astype(np.float64) - target, axis=1)))


@rule("C6")
def check_affine_form_is_the_map(thing: Any) -> None:
    """`affine` describes the same map as `apply`, with arrays of the documented shapes."""
    for words, fitted in _fits(thing, shift=0.3):
        form = fitted.affine()
        if form is None:
            continue
        require(isinstance(form, Affine), f"affine returned {type(form).__name__}, expected vecdb.contracts.Affine")
        _check_shapes(form, fitted.source_dim, fitted.target_dim)
        rows = _rows(20, fitted.source_dim)
        far = _far(form.apply(rows), fitted.apply(rows))
        require(far <= 1e-4, f"the affine form is {far:.1e} away from apply {words}")
        if form.row_bias is not None:
            stored = _rows(20, fitted.target_dim if fitted.direction == "query" else fitted.source_dim)
            _check_row_numbers("row_bias", form.row_bias(stored))


def _check_shapes(form: Affine, source: int, target: int) -> None:
    for name, array, shape in (
        ("W", form.W, (source, target)),
        ("b", form.b, (target,)),
        ("shift", form.shift, (target,)),
    ):
        if array is None and name == "shift":
            continue
        require(
            isinstance(array, np.ndarray) and array.dtype == np.float64 and array.shape == shape,
            f"{name} of the affine form is {getattr(array, 'dtype', type(array).__name__)} of shape "
            f"{getattr(array, 'shape', None)}, expected float64 of shape {shape}",
        )
    if form.row_scale is not None:
        scale = form.row_scale(_rows(20, source))
        _check_row_numbers("row_scale", scale)
        require((scale > 0).all(), "row_scale of the affine form is not positive")


def _check_row_numbers(name: str, numbers: Any) -> None:
    right = isinstance(numbers, np.ndarray) and numbers.shape == (20,) and numbers.dtype == np.float32
    require(right and np.isfinite(numbers).all(), f"{name} of the affine form is not one finite float32 for each row")


@rule("C7")
def check_lipschitz_bound_holds(thing: Any) -> None:
    """No two vectors are further apart after mapping than `lipschitz` times their distance before."""
    for words, fitted in _fits(thing, shift=0.3):
        bound = fitted.lipschitz
        if bound is None:
            continue
        one = _rows(200, fitted.source_dim)
        for step in (1.0, 0.05, 4.0):
            other = planted.read_only((one + step * _rows(200, fitted.source_dim, seed=7)).astype(np.float32))
            before = np.linalg.norm(one.astype(np.float64) - other, axis=1)
            after = np.linalg.norm(fitted.apply(one).astype(np.float64) - fitted.apply(other), axis=1)
            worst = float((after / before).max())
            require(
                worst <= bound * 1.001 + 1e-5, f"a distance grows {worst:.3f} times, lipschitz is {bound:.3f} {words}"
            )


@rule("C8")
def check_companion_leads_to_the_joint_space(thing: Any) -> None:
    """Only a joint transform has a companion: from the target's width to the same columns as its own."""
    for width in (each for each in planted.WIDTHS_OF if each in thing.capabilities.widths):
        data = _data(thing, width=width)
        fitted = thing.fit(data, fitting.defaults(thing))
        other = fitted.companion()
        if other is None:
            same = fitted.target_dim == data.target.shape[1]
            require(same, f"without a companion target_dim must be {data.target.shape[1]}, it is {fitted.target_dim}")
            continue
        require(thing.capabilities.joint, "it has a companion, but the capability joint is not declared")
        widths = other.source_dim, other.target_dim
        wanted = data.target.shape[1], fitted.target_dim
        require(widths == wanted, f"the companion maps {widths[0]} to {widths[1]} columns, expected {wanted}")
        mapped = other.apply(_rows(4, wanted[0]))
        require(
            mapped.shape == (4, wanted[1]), f"the companion returned shape {mapped.shape}, expected {(4, wanted[1])}"
        )


@rule("C9")
def check_uncertainty_is_a_squared_error(thing: Any) -> None:
    """`uncertainty` is None, or one finite float32 for each row that is not negative."""
    fitted = _default(thing)
    for count in (0, 8):
        found = fitted.uncertainty(_rows(count, fitted.source_dim))
        if found is not None:
            right = isinstance(found, np.ndarray) and found.dtype == np.float32 and found.shape == (count,)
            require(right, f"uncertainty returned {found!r} for {count} rows")
            require(np.isfinite(found).all() and (found >= 0).all(), "uncertainty is negative or not finite")


# --- S: state ---------------------------------------------------------------------------------------------


@rule("S1")
def check_state_is_plain(thing: Any) -> None:
    """`state` returns a dict of plain values and arrays, the same at every call: nothing that would have to be run."""
    for _, fitted in _fits(thing):
        fitting.stores_plainly(fitted)


@rule("S2")
def check_state_gives_the_transform_back(thing: Any) -> None:
    """`load` of a state gives a transform that maps, claims and is stored as the one it came from, bit for bit."""
    for words, fitted in _fits(thing):
        again = thing.load(fitting.restored(fitted.state()))
        rows = _rows(9, fitted.source_dim)
        require(np.array_equal(fitted.apply(rows), again.apply(rows)), f"the loaded transform maps differently {words}")
        for name in ("source_dim", "target_dim", "direction", "isometry", "lipschitz"):
            was, now = getattr(fitted, name), getattr(again, name)
            require(was == now, f"{name} of the loaded transform is {now!r}, it was {was!r} {words}")
        require(fitting.digest(fitted) == fitting.digest(again), f"its state is another one {words}")


@rule("S3")
def check_damaged_state_is_refused(thing: Any) -> None:
    """`load` of anything else raises `CorruptionError`: parts missing, of another type or shape, or not finite."""
    fitting.refuses_damage(thing, _default(thing).state())


CHECKS = collect(globals().values())


def iter_transform_checks(thing: Any) -> Iterator[Check]:
    """Yield the checks for a type of transform, chosen by the capabilities that it declares."""
    return applying(CHECKS, thing)
