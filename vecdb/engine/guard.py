"""The identity guard at work: keeps each space's profile, and holds every batch of vectors against it.

What a profile is and how it judges: vecdb/engine/identity.py. Here: when it is fitted (from the space's own vectors),
where it is kept (beside the space, in the commit that made it needed), and what a verdict leads to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vecdb.engine.identity import MIN_BATCH, MIN_ROWS, Cusum, Profile, explain, fit_profile
from vecdb.errors import CorruptionError, WrongModelError
from vecdb.storage.snapshot import Snapshot
from vecdb.storage.spaces import SpaceView, profile_key, read_profile
from vecdb.types import Space

if TYPE_CHECKING:
    from vecdb.engine.batch import SpaceBatch
    from vecdb.storage.writetx import Pending, WriteTx

SAMPLE_ROWS = 4096
_REFIT_GROWTH = 10
"""A profile is fitted anew when the space has grown this many times: early rows may be of one topic."""
_LAST_REFIT = 20_000


Warner = Callable[[npt.NDArray[np.float32]], list[str | None]]
"""Returns for each query a sentence if it looks foreign."""


@dataclass(frozen=True, slots=True)
class Review:
    """What the guard found out about one space's part of a batch, to be made true in the commit."""

    space: Space
    unverified: int = 0
    vectors: npt.NDArray[Any] | None = None
    """Rows for the running guard (small writes)."""
    profile: Profile | None = None
    fitted: int = 0
    """Live rows when `profile` was fitted, if that was just now."""

    def apply(self, write: WriteTx, pending: Pending) -> None:
        """Store a new profile; step the running guard, which may refuse the write."""
        counts = pending.spaces[self.space.id]
        if self.vectors is not None and self.profile is not None:
            state, alarm = self.profile.step(_cusum(counts.cusum), self.vectors)
            if alarm:
                raise WrongModelError(
                    f"the last single vectors written to space {self.space.name!r} do not look like its model's",
                    hint="Check which model made them; trust=True skips this guard.",
                    space=self.space.name,
                    numbers=state._asdict(),
                )
            counts = replace(counts, cusum=tuple(state))
        if self.fitted and self.profile is not None:
            write.put_profile(self.space, self.profile.to_state())
            counts = replace(counts, profiled=self.fitted)
        pending.spaces[self.space.id] = counts


def _cusum(stored: tuple[float, ...]) -> Cusum:
    return Cusum(float(stored[0]), int(stored[1])) if len(stored) == 2 else Cusum()


def _nothing() -> None:
    """Return None."""


class Guard:
    """Profiles of the spaces of one database, as this process knows them."""

    def __init__(self) -> None:
        self._profiles: dict[tuple[int, int], Profile] = {}
        """Read from the file: by space, and its live rows when it was fitted."""
        self._fitted: dict[tuple[int, int], Profile] = {}
        """Fitted by this process, perhaps not stored yet."""
        self._seals: dict[int, bytes] = {}
        """Checksum of the stored profile that is remembered of each space."""
        self.lanes: Callable[[], Any] = _nothing
        """Returns the newest lanes of this database, `vecdb.engine.lanes`, while anybody holds them."""

    def review(self, snapshot: Snapshot, collection: int | None, part: SpaceBatch, *, trust: bool) -> Review:
        """Judge one space's part of a batch; a collection that was not committed yet (None) has no profiles.

        Raises
        ------
        WrongModelError
            If a batch of `MIN_BATCH` rows or more does not look like the space's model and `trust` is False.
        """
        counts = None if collection is None else snapshot.counts(collection).spaces.get(part.space.id)
        if collection is None or counts is None or counts.live < MIN_ROWS:
            return Review(part.space, len(part.vectors))
        if trust or not len(part.vectors):
            return Review(part.space)
        self._forget_replaced(snapshot, part.space)
        profile, fitted = self._profile(snapshot, collection, part.space)
        if len(part.vectors) < MIN_BATCH:
            return Review(part.space, len(part.vectors), part.vectors, profile, fitted)
        self._judge(profile, part)
        return Review(part.space, 0, None, profile, fitted)

    def _forget_replaced(self, snapshot: Snapshot, space: Space) -> None:
        """Forget what is remembered of a space whose profile is another one now, or is gone.

        A space that a rollback emptied loses its profile, and may reach the same counts with another model.
        """
        stored = snapshot.tx.get("meta", profile_key(space))
        seal = b"" if stored is None else bytes(stored[:8])
        if self._seals.get(space.id, seal) != seal:
            for known in (self._profiles, self._fitted):
                for key in [key for key in known if key[0] == space.id]:
                    known.pop(key, None)
        self._seals[space.id] = seal

    @staticmethod
    def _judge(profile: Profile, part: SpaceBatch) -> None:
        verdict = profile.judge(part.vectors)
        if not verdict.ok:
            model = f" ({part.space.model} {part.space.revision})".replace(" )", ")") if part.space.model else ""
            raise WrongModelError(
                f"{len(part.vectors)} vectors for space {part.space.name!r}{model} do not look like its model's: "
                f"{explain(verdict)}",
                hint="Check which model made them; a new model needs a space of its own. trust=True skips this guard.",
                space=part.space.name,
                numbers=dict(verdict.numbers),
            )

    def _profile(self, snapshot: Snapshot, collection: int, space: Space) -> tuple[Profile, int]:
        """Return the space's profile, and the live rows it was fitted on if that was just now (else 0)."""
        counts = snapshot.counts(collection).spaces[space.id]
        due = counts.profiled == 0 or (counts.live >= _REFIT_GROWTH * counts.profiled and counts.profiled < _LAST_REFIT)
        known = None if due else self._sound(snapshot, space, counts.profiled)
        return (self._fit(snapshot, collection, space, counts.live), counts.live) if known is None else (known, 0)

    def _fit(self, snapshot: Snapshot, collection: int, space: Space, live: int) -> Profile:
        key = (space.id, live)
        if key not in self._fitted:  # else fitted for a commit that has not come yet: a transaction has many writes
            sample = sample_vectors(snapshot, snapshot.space(collection, space))
            self._fitted[key] = fit_profile(sample, space.metric)
        return self._fitted[key]

    def _sound(self, snapshot: Snapshot, space: Space, profiled: int) -> Profile | None:
        """Return the stored profile, None if it is damaged: it was made of the vectors, and can be made again."""
        try:
            return self._known(snapshot, space, profiled)
        except CorruptionError as error:
            import logging  # a first search, which comes here, is spared it

            message = "the identity profile of space %r is damaged and has to be fitted anew: %s"
            logging.getLogger("vecdb").warning(message, space.name, error)
            return None

    def _known(self, snapshot: Snapshot, space: Space, profiled: int) -> Profile:
        key = (space.id, profiled)
        if key not in self._profiles:
            state = read_profile(snapshot.tx, space)
            self._profiles[key] = Profile.from_state(state if isinstance(state, Mapping) else {})
            self._fitted.pop(key, None)
        return self._profiles[key]

    def warner(self, snapshot: Snapshot, collection: int, space: Space) -> Warner | None:
        """Return what says of each query whether it looks foreign; None for a space without a profile.

        It reads nothing any more, so it may be asked after the snapshot is gone.
        """
        counts = snapshot.counts(collection).spaces.get(space.id)
        if counts is None or not counts.profiled:
            return None
        profile = self._sound(snapshot, space, counts.profiled)
        if profile is None and counts.live < MIN_ROWS:
            return None
        if profile is None:
            profile = self._fit(snapshot, collection, space, counts.live)
        return profile.query_warnings


def sample_vectors(snapshot: Snapshot, view: SpaceView, count: int = SAMPLE_ROWS) -> npt.NDArray[np.float32]:
    """Return up to `count` live vectors, drawn evenly over the space; the same for the same content."""
    dead = view.dead(snapshot.tx)
    live = np.arange(len(view), dtype=np.int64) if dead is None else np.flatnonzero(~dead)
    if len(live) > count:
        live = np.sort(np.random.default_rng(len(live)).choice(live, count, replace=False))
    return view.gather(snapshot.tx, live).astype(np.float32)
