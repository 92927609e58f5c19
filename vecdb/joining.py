"""Joint spaces as an application sees them: `Collection.add_joint_space` and what is said of them.

Part of `Collection`, in a file of its own because most programs never use it. The work is done by vecdb/engine/joint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from vecdb.errors import CancelledError
from vecdb.lazy import LazyModule
from vecdb.storage.joints import joint_of
from vecdb.storage.snapshot import find_space
from vecdb.types import CancelCheck, Progress

if TYPE_CHECKING:
    from vecdb.database import Database
    from vecdb.engine import joint as joint_spaces
    from vecdb.engine.joint import making
    from vecdb.engine.reading import OpenView
    from vecdb.storage.state import CollectionEntry
    from vecdb.verdicts import JointSpace
else:
    joint_spaces = LazyModule("vecdb.engine.joint")
    making = LazyModule("vecdb.engine.joint.making")

__all__ = ["Joining"]


class Joining:
    """The part of `Collection` that is about one index over the vectors of two models."""

    if TYPE_CHECKING:
        _database: Database

        @property
        def _key(self) -> tuple[int, str]: ...
        def _entry(self) -> CollectionEntry: ...
        def _view(self, as_of: int | str | None = None) -> OpenView: ...

    def add_joint_space(
        self,
        name: str,
        transform: str,
        *,
        dtype: Literal["float32", "float16", "int8"] = "float16",
        progress: Progress | None = None,
        cancel: CancelCheck | None = None,
    ) -> JointSpace:
        """Add a space that holds the vectors of an old and a new model together, so that one index serves both.

        Its rows are made, and kept up to date by every commit, from what is stored: of a record's vector in the new
        space, else of the one in the old space, which stays as it is. It is indexed like any space, and
        ``search(q, space=..., spaces=[name])`` asks that index in the place of one for each space. Rows only find
        candidates; scores are those of the two spaces.

        Parameters
        ----------
        name : str
            1 to 200 characters.
        transform : str
            A stored joint transform of kind "bt2" or "oca" between two cosine spaces, without dropped columns.
        dtype : {"float32", "float16", "int8"}, default "float16"
            How rows are stored.
        progress : callable, optional
            Called as ``progress(records so far, all)`` after each commit.
        cancel : callable, optional
            Asked before each commit; `CancelledError` then.

        Returns
        -------
        JointSpace

        Raises
        ------
        UnknownNameError
            There is no such transform.
        ParameterError
            It makes no joint space that keeps new vectors whole.
        ExistsError
            The collection has another space of this name.
        CancelledError

        Notes
        -----
        Existing records are filled in 2,048 at a time, each time one commit. If that is interrupted, the same call
        goes on. Dropping either space or the transform drops the joint space, too.
        """
        database = self._database
        database._refuse_in_transaction("add_joint_space")
        store = database._writable()
        number = self._known_joint(name, transform)
        if number is None:
            with self._view() as view:
                space, entry = making.plan_joint(view, name, transform, dtype, database._registry)
            number = database._write(making.add_joint(self._key, space, entry, transform)).id
        follower = joint_spaces.follower_of(store, database._registry)
        start: int | None = 0
        while start is not None:
            if cancel is not None and cancel():
                raise CancelledError(f"filling joint space {name!r} was cancelled; the rows that are there stay")
            start = database._write(making.fill_some(self._key, number, start, follower), self._entry())
            if progress is not None:
                told = self._joint(name)
                progress(told.rows, told.rows + told.waiting)
        return self._joint(name)

    def _known_joint(self, name: str, transform: str) -> int | None:
        """Return the number of a joint space that was added by the same call before."""
        with self._view() as view:
            known = view.entry.spaces.get(name)
            joint = None if known is None else joint_of(view.entry.joints, known.id)
            names = {each.set: each.name for each in view.entry.transforms}
            return joint.space if joint is not None and names.get(joint.transform) == transform else None

    def _joint(self, name: str) -> JointSpace:
        find_space(self._entry(), name)
        return self.joint_spaces[name]

    @property
    def joint_spaces(self) -> dict[str, JointSpace]:
        """The joint spaces by name, in the order they were added."""
        from vecdb.verdicts import JointSpace  # most programs never say it

        with self._view() as view:
            names = {space.id: space for space in view.entry.spaces.values()}
            transforms = {each.set: each.name for each in view.entry.transforms}
            found = {}
            for joint in view.entry.joints:
                space, counts = names[joint.space], view.space(names[joint.space]).counts
                ends = names[joint.old].name, names[joint.new].name, transforms[joint.transform]
                found[space.name] = JointSpace(
                    space.name, *ends, space.dim, counts.live, making.waiting_in(view, joint)
                )
            return found
