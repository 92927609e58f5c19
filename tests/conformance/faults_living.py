"""Index types that build, store or grow badly (L), or touch what is not theirs (X)."""

import os
import pickle
import threading

import numpy as np

from tests.conformance.faulty import (
    LEFT_OPEN,
    RELEASE,
    Answering,
    breaks,
    louder,
)
from tests.conformance.plain import PlainIndex
from vecdb.errors import CancelledError, CorruptionError

# --- L ---


@breaks("check_deterministic")
class Moody(Answering):
    """With seed 0, each build is another."""

    builds = 0
    mood = 0

    @classmethod
    def build(cls, view, params, *, seed, progress, cancel):
        index = super().build(view, params, seed=seed, progress=progress, cancel=cancel)
        cls.builds += 1
        index.mood = cls.builds % 2 if seed == 0 else 0
        return index

    def spoil(self, said, queries, k, allowed, effort):
        return louder(said) if self.mood else said


@breaks("check_builds_are_independent")
class Jealous(Answering):
    latest = 0.0

    @classmethod
    def build(cls, view, params, *, seed, progress, cancel):
        index = super().build(view, params, seed=seed, progress=progress, cancel=cancel)
        Jealous.latest = float(index.rows.mean())
        return index

    def spoil(self, said, queries, k, allowed, effort):
        return louder(said) if self.rows.mean() < 0.5 < Jealous.latest < 1.5 else said


class Reporting(PlainIndex):
    @classmethod
    def build(cls, view, params, *, seed, progress, cancel):
        cls.report(progress, view.count)
        return super().build(view, params, seed=seed, progress=lambda *_: None, cancel=cancel)


@breaks("check_progress")
class SaysNothing(Reporting):
    @staticmethod
    def report(progress, count):
        pass


@breaks("check_progress")
class NeverReady(Reporting):
    @staticmethod
    def report(progress, count):
        progress(0, count)


@breaks("check_progress")
class SaysShares(Reporting):
    @staticmethod
    def report(progress, count):
        progress(1.0, 1.0)


@breaks("check_progress")
class GoesBack(Reporting):
    @staticmethod
    def report(progress, count):
        for done in (5, 3, count):
            progress(min(done, count), count)


@breaks("check_cancel")
class NeverAsks(PlainIndex):
    @classmethod
    def build(cls, view, params, *, seed, progress, cancel):
        return super().build(view, params, seed=seed, progress=progress, cancel=lambda: False)


@breaks("check_cancel")
class AsksOnlyOnce(PlainIndex):
    @classmethod
    def build(cls, view, params, *, seed, progress, cancel):
        if cancel():
            raise CancelledError("cancelled")
        return super().build(view, params, seed=seed, progress=progress, cancel=lambda: cancel() and False)


@breaks("check_stats")
class NumpyStats(PlainIndex):
    def stats(self):
        return {"vectors": np.int64(3)}


@breaks("check_stats")
class EndlessStats(PlainIndex):
    def stats(self):
        return {"ratio": float("inf")}


class Dumping(PlainIndex):
    """Writes one blob more than the correct one."""

    def dump(self, blobs):
        super().dump(blobs)
        blobs.write(*self.more())


@breaks("check_blobs")
class LoudNames(Dumping):
    def more(self):
        return "Loud Name", b"x"


@breaks("check_blobs")
class Gaps(Dumping):
    def more(self):
        return "gaps", np.arange(10, dtype=np.int64)[::2]


@breaks("check_dump_lends_its_data")
class TakesItBack(Dumping):
    lent = bytearray(1)

    def more(self):
        self.lent = bytearray(4)
        return "lent", self.lent

    def search(self, queries, k, *, allowed, effort, view):
        self.lent[0] ^= 1
        return super().search(queries, k, allowed=allowed, effort=effort, view=view)


@breaks("check_dump_changes_nothing")
class CountsDumps(Dumping):
    dumps = 0

    def more(self):
        self.dumps += 1
        return "dumps", bytes([self.dumps])


@breaks("check_round_trip")
class KnowsItWasLoaded(Dumping):
    loaded = b"no"

    def more(self):
        return "loaded", self.loaded

    @classmethod
    def load(cls, blobs, view, params):
        index = super().load(blobs, view, params)
        index.loaded = b"ja"
        return index


@breaks("check_round_trip", "check_load_where_vectors_are_gone", "check_grown_round_trip", "check_keeps_nothing_lent",
        "check_damage_is_reported", "check_forged_blobs")  # fmt: skip
class ChangesWhenLoaded(Answering):
    was_loaded = False

    @classmethod
    def load(cls, blobs, view, params):
        index = super().load(blobs, view, params)
        index.was_loaded = True
        return index

    def spoil(self, said, queries, k, allowed, effort):
        return louder(said) if self.was_loaded else said


@breaks("check_load_where_vectors_are_gone")
class NeedsThemAll(PlainIndex):
    @classmethod
    def load(cls, blobs, view, params):
        view.gather(np.arange(view.count))
        return super().load(blobs, view, params)


@breaks("check_damage_is_reported")
class HidesDamage(PlainIndex):
    @classmethod
    def load(cls, blobs, view, params):
        try:
            return super().load(blobs, view, params)
        except CorruptionError as error:
            if "damaged" not in str(error):
                raise
            return cls(np.ones((view.count, view.dim), np.float32), view.metric)


@breaks("check_add")
class AddsNothing(PlainIndex):
    def add(self, view, start, *, progress, cancel):
        self.rows = np.concatenate([self.rows, np.ones((view.count - start, view.dim), np.float32)])
        self.alive = np.concatenate([self.alive, np.ones(view.count - start, np.bool_)])


@breaks("check_grown_round_trip")
class DumpsWhatItWas(PlainIndex):
    was = None

    def add(self, view, start, *, progress, cancel):
        self.was = PlainIndex(self.rows, self.metric, self.alive)
        super().add(view, start, progress=progress, cancel=cancel)

    def dump(self, blobs):
        PlainIndex.dump(self.was or self, blobs)


@breaks("check_remove")
class RemovesTooMuch(PlainIndex):
    def remove(self, positions):
        self.alive[: int(max(positions)) // 2] = False


@breaks("check_remove", able={"filtered": False})
class RemovesNothing(PlainIndex):
    def remove(self, positions):
        pass


@breaks("check_segment")
class EncodesItself(PlainIndex):
    def encode_segment(self, view, blobs):
        self.dump(blobs)


# --- X ---


@breaks("check_keeps_nothing_lent")
class KeepsTheView(PlainIndex):
    @classmethod
    def build(cls, view, params, *, seed, progress, cancel):
        index = super().build(view, params, seed=seed, progress=progress, cancel=cancel)
        index.view = view
        return index

    def search(self, queries, k, *, allowed, effort, view):
        if hasattr(self, "view"):
            self.view.gather([0])
        return super().search(queries, k, allowed=allowed, effort=effort, view=view)


@breaks("check_keeps_nothing_lent")
class KeepsBlocks(PlainIndex):
    """Looks at vectors in place after the loan has ended."""

    blocks = None

    @classmethod
    def build(cls, view, params, *, seed, progress, cancel):
        index = super().build(view, params, seed=seed, progress=progress, cancel=cancel)
        with view.in_place() as here:
            index.blocks = here.blocks
        return index

    def find(self, query, k, mask):
        spoilt = self.blocks is not None and np.isnan(self.blocks.matrices[0]).any()
        return super().find(query * 0 + 1 if spoilt else query, k, mask)


@breaks("check_keeps_nothing_lent")
class AnswersAreItsOwn(Answering):
    """Gives out a buffer that the next search writes to."""

    buffer = None

    def spoil(self, said, queries, k, allowed, effort):
        if self.buffer is None or self.buffer[0].shape != said[0].shape or k != 10 or allowed is not None:
            self.buffer = said
        elif threading.current_thread() is threading.main_thread() and queries.flags.owndata:
            for ours, theirs in zip(self.buffer, said, strict=True):
                ours[...] = theirs
            return self.buffer
        return said


@breaks("check_global_random_numbers")
class RollsNumpysDice(PlainIndex):
    def find(self, query, k, mask):
        np.random.rand()
        return super().find(query, k, mask)


@breaks("check_global_random_numbers")
class SeedsNumpy(PlainIndex):
    @classmethod
    def build(cls, view, params, *, seed, progress, cancel):
        np.random.seed(seed % 2**32)
        return super().build(view, params, seed=seed, progress=progress, cancel=cancel)


@breaks("check_threads_end")
class LeavesThread(PlainIndex):
    def dump(self, blobs):
        threading.Thread(target=RELEASE.wait, daemon=True).start()
        super().dump(blobs)


@breaks("check_output")
class Chatty(PlainIndex):
    def dump(self, blobs):
        print("dumping")
        super().dump(blobs)


@breaks("check_files_left_open")
class LeavesPipe(PlainIndex):
    def stats(self):
        LEFT_OPEN.extend(os.pipe())
        return super().stats()


@breaks("check_no_files")
class ReadsFile(PlainIndex):
    def stats(self):
        with open(os.devnull, "rb"):
            return super().stats()


@breaks("check_nothing_is_executed")
class Unpickles(PlainIndex):
    @classmethod
    def load(cls, blobs, view, params):
        pickle.loads(pickle.dumps([1]))
        return super().load(blobs, view, params)


@breaks("check_nothing_is_executed")
class Evaluates(PlainIndex):
    @classmethod
    def load(cls, blobs, view, params):
        eval("1 + 1")
        return super().load(blobs, view, params)


@breaks("check_forged_blobs")
class CrashesOnLength(PlainIndex):
    @classmethod
    def load(cls, blobs, view, params):
        if "rows" in blobs.names() and blobs.size("rows") % 4:
            os._exit(3)
        return super().load(blobs, view, params)


@breaks("check_forged_blobs")
class TrustsTheHead(PlainIndex):
    """Allocates what the head says."""

    @classmethod
    def load(cls, blobs, view, params):
        if blobs.read("head")[:1] != b"[":
            np.empty(1 << 42, np.uint8)
        return super().load(blobs, view, params)


@breaks("check_forged_blobs")
class OtherErrors(PlainIndex):
    @classmethod
    def load(cls, blobs, view, params):
        try:
            return super().load(blobs, view, params)
        except CorruptionError as error:
            if "damaged" in str(error) or "missing" in str(error):
                raise
            raise ValueError("bad data") from None


@breaks("check_forged_blobs")
class BelievesAnything(PlainIndex):
    """Fills up what is short."""

    @classmethod
    def load(cls, blobs, view, params):
        if "rows" not in blobs.names() or blobs.size("rows") >= view.count * view.dim * 4:
            return super().load(blobs, view, params)
        blobs.read("rows")
        return cls(np.ones((view.count, view.dim), np.float32), view.metric)
