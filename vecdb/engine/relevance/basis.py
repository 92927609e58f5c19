"""What the scores of a search are made of: which vectors answer, and over which transforms.

A filter is fitted for one basis. Another one means other scores: those of an old model through a bridge, or native ones
and bridged ones on a common scale. Numbers of spaces and of transforms are never reused, so a basis cannot be taken for
another one. Invariant: the basis depends on the state of the collection and the arguments of a search, never on which
hits come up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from vecdb.contracts.relevance import RelevanceCapabilities
from vecdb.engine.bridge import masks
from vecdb.engine.bridge.classes import VectorClass, reach_of
from vecdb.engine.view import CollectionView
from vecdb.registry import PluginRegistry
from vecdb.storage.relevance import Basis
from vecdb.storage.spaces import SpaceView
from vecdb.storage.state import CollectionEntry
from vecdb.types import Space

NATIVE_SPACES: Final = "native"


def basis_of(
    view: CollectionView,
    space: Space,
    registry: PluginRegistry,
    *,
    others: Sequence[Space] = (),
    among: frozenset[str] | None = None,
) -> Basis:
    """Return the classes of vectors that answer a query.

    Parameters
    ----------
    view : CollectionView
    space : Space
        Whose scale the answer has.
    registry : PluginRegistry
    others : sequence of Space
        Further spaces that the query is given in.
    among : frozenset of str, optional
        Spaces whose vectors may answer; default all.

    Returns
    -------
    tuple of tuple of int
        Sorted; each the number of a space and the sets of the transforms on the way. The space's own class if nothing
        answers.
    """
    reach = reach_of(view, [space, *others], space, registry, among)
    before: list[SpaceView] = []
    found = []
    for each in reach.classes:
        space_view = view.space(each.space)
        if masks.allowed(view, space_view, before, None, None).count:
            found.append(_class_of(each))
        before.append(space_view)
    return tuple(sorted(found)) or native_basis(space)


def native_basis(space: Space) -> Basis:
    """Return the basis of a space whose own vectors answer alone."""
    return ((space.id,),)


def _class_of(each: VectorClass) -> tuple[int, ...]:
    walked = (walk.loaded.entry.set for walk in each.walks)
    return (each.space.id, *walked, *(loaded.entry.set for loaded, _ in each.gallery))


def mismatch(
    entry: CollectionEntry, space: Space, fitted: Basis, found: Basis, able: RelevanceCapabilities
) -> str | None:
    """Return why a filter that was fitted for one basis may not judge answers of another; None if it may.

    A filter whose kind may judge bridged scores once they are on the native scale (transfer "rescore") is not troubled
    by bridged ones beside native ones, if it was fitted on native ones and reference rows bring the others there.
    """
    if fitted == found:
        return None
    if able.transfer == "rescore" and fitted == native_basis(space) and (space.id,) in found:
        scaled = {each.set for each in entry.transforms if each.reference}
        if all(scaled.issuperset(each[1:]) for each in found):
            return None
    return f"it was fitted on {_told(entry, fitted)}, and {_told(entry, found)} answer now"


def _told(entry: CollectionEntry, basis: Basis) -> str:
    spaces = {space.id: space.name for space in entry.spaces.values()}
    names = {each.set: each.name for each in entry.transforms}
    return " and ".join(_told_class(each, spaces, names) for each in basis)


def _told_class(each: tuple[int, ...], spaces: dict[int, str], names: dict[int, str]) -> str:
    whose = repr(spaces[each[0]]) if each[0] in spaces else "a space that was dropped"
    way = "+".join(names.get(number, "a dropped transform") for number in each[1:])
    return f"vectors of {whose}" + (f" through {way}" if way else "")
