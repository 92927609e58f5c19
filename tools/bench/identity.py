"""False alarms and misses of the identity profile on real embeddings.

    python tools/bench/identity.py --batches 400 --fit 2000 4096 --section perl python --seeds 2

Prints, per space and kind of batch, how many batches were judged, how many were judged wrongly, and the margin: the
worst score minus its limit (native) or the limit minus the best score (foreign), in units of the gap between the
two sides that the fit saw. `disjoint` is how many of the batches share no row with another of their kind. Documents
that a profile was fitted to are in no native batch.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from vecdb.engine.identity import Cusum, Profile, Verdict, fit_profile

ROWS = 64
TEXT_MODELS = ("mini6", "e5s", "wl256", "use3")


def default_root() -> Path:
    """Return the folder of the shared data."""
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    return Path(os.environ.get("VECDB_SHARED_DATA", beside))


def load(root: Path, stem: str) -> np.ndarray:
    """Return the vectors of ``stem.{f16,i8}.npy`` as unit rows in float32."""
    path = next(p for p in (root / f"{stem}.f16.npy", root / f"{stem}.i8.npy") if p.exists())
    rows = np.load(path).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def sections(root: Path) -> np.ndarray:
    """Return the section of every Debian document."""
    with gzip.open(root / "debian" / "docs.jsonl.gz", "rt") as lines:
        return np.array([json.loads(line)["section"] for line in lines])


@dataclass
class Space:
    """The native pools of one model and the other models of the same data."""

    name: str
    docs: np.ndarray
    topics: np.ndarray
    pools: dict[str, np.ndarray]
    others: dict[str, np.ndarray] = field(default_factory=dict)

    def without(self, rows: np.ndarray) -> Space:
        """Return the space without the documents that a profile was fitted to."""
        kept = np.setdiff1d(np.arange(len(self.docs)), rows)
        return replace(self, docs=self.docs[kept], topics=self.topics[kept])


def text_spaces(root: Path, models: tuple[str, ...] = TEXT_MODELS) -> list[Space]:
    """Return the text models over Debian, with Cranfield and the queries as other domains and roles."""
    topic = sections(root)
    docs = {name: load(root, f"debian/{name}.docs") for name in TEXT_MODELS}
    spaces = []
    for name in models:
        pools = {"queries": load(root, f"debian/{name}.queries")}
        pools["cranfield"] = load(root, f"cranfield/{name}.docs")
        pools["cranfield-queries"] = load(root, f"cranfield/{name}.queries")
        if name == "mini6":
            pools["summaries"] = load(root, "summaries/mini6.docs")
        width = docs[name].shape[1]
        others = {other: to_width(rows, width) for other, rows in docs.items() if other != name}
        spaces.append(Space(name, docs[name], topic, pools, others))
    return spaces


def emoji_spaces(root: Path) -> list[Space]:
    """Return the two image models over both drawing styles."""
    with gzip.open(root / "emoji" / "meta.jsonl.gz", "rt") as lines:
        topic = np.array([json.loads(line)["category"] for line in lines] * 2)
    both = {m: np.vstack([load(root, f"emoji/{m}.{style}") for style in ("google", "twitter")]) for m in ("el0", "el2")}
    return [
        Space(name, both[name], topic, {}, {other: both[other]}) for name, other in (("el0", "el2"), ("el2", "el0"))
    ]


def to_width(rows: np.ndarray, width: int) -> np.ndarray:
    """Cut or zero-pad vectors of another model to a width, at unit length: the mistake a width check cannot see."""
    fitted = np.pad(rows, ((0, 0), (0, max(0, width - rows.shape[1]))))[:, :width]
    return fitted / np.maximum(np.linalg.norm(fitted, axis=1, keepdims=True), 1e-12)


def nearest(pool: np.ndarray, rng: np.random.Generator, count: int) -> Iterator[np.ndarray]:
    """Yield index sets of a row's 64 nearest neighbours."""
    for row in rng.choice(len(pool), count):
        yield np.argpartition(-(pool @ pool[row]), ROWS - 1)[:ROWS]


def at_random(pool: np.ndarray, rng: np.random.Generator, count: int) -> Iterator[np.ndarray]:
    """Yield random index sets of 64 rows that share no row until the pool is used up."""
    left = np.empty(0, dtype=np.intp)
    for _ in range(count):
        if len(left) < ROWS:
            left = rng.permutation(len(pool))
        chosen, left = left[:ROWS], left[ROWS:]
        yield chosen


def single_topic(space: Space, rng: np.random.Generator, count: int) -> Iterator[np.ndarray]:
    """Yield index sets of 64 rows of one topic, going round all topics that have as many."""
    names, sizes = np.unique(space.topics, return_counts=True)
    members = [np.flatnonzero(space.topics == name) for name in names[sizes >= ROWS]]
    streams = [at_random(rows, rng, count) for rows in members]
    for turn in range(count):
        yield members[turn % len(members)][next(streams[turn % len(members)])]


def native_batches(space: Space, rng: np.random.Generator, count: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (kind, batch) of the space's own model."""
    kinds: dict[str, tuple[np.ndarray, Iterator[np.ndarray]]] = {
        "random": (space.docs, at_random(space.docs, rng, count)),
        "one topic": (space.docs, single_topic(space, rng, count)),
        "neighbours": (space.docs, nearest(space.docs, rng, count)),
    }
    for name, pool in space.pools.items():
        kinds[name] = (pool, at_random(pool, rng, count))
        kinds[f"{name} neighbours"] = (pool, nearest(pool, rng, count // 2))
    for kind, (pool, members) in kinds.items():
        for chosen in members:
            yield kind, pool[chosen]
    yield from _duplicates(space, rng, count)


def _duplicates(space: Space, rng: np.random.Generator, count: int) -> Iterator[tuple[str, np.ndarray]]:
    pools = [space.docs, *space.pools.values()]
    for turn in range(count):
        pool = pools[turn % len(pools)]
        yield "one row repeated", np.repeat(pool[rng.integers(len(pool))][None], ROWS, axis=0)
        noisy = np.repeat(pool[rng.choice(len(pool), 4)], ROWS // 4, axis=0)
        yield "4 rows repeated", noisy + 0.001 * rng.standard_normal(noisy.shape).astype(np.float32)
        yield "8 rows repeated", np.repeat(pool[rng.choice(len(pool), 8)], ROWS // 8, axis=0)


def foreign_batches(space: Space, rng: np.random.Generator, count: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (kind, batch) of vectors of the right width from anywhere else."""
    for name, pool in space.others.items():
        for chosen in (*at_random(pool, rng, count), *nearest(pool, rng, count)):
            yield name, pool[chosen]
    dim = space.docs.shape[1]
    pools = [space.docs, *space.pools.values()]
    turns: dict[str, Callable[[], Callable[[np.ndarray], np.ndarray]]] = {
        "rotated": lambda: _rotation(rng, dim),
        "columns permuted": lambda: _permutation(rng, dim),
        "signs flipped": lambda: _signs(rng, dim),
    }
    for kind, make in turns.items():
        for _ in range(max(1, count // 10)):
            turn = make()
            pool = pools[rng.integers(len(pools))]
            for chosen in (*at_random(pool, rng, 8), *nearest(pool, rng, 8)):
                yield kind, turn(pool[chosen])
    for _ in range(count):
        noise = rng.standard_normal((ROWS, dim)).astype(np.float32)
        yield "gaussian noise", noise / np.linalg.norm(noise, axis=1, keepdims=True)


def _rotation(rng: np.random.Generator, dim: int) -> Callable[[np.ndarray], np.ndarray]:
    turn = np.linalg.qr(rng.standard_normal((dim, dim)))[0].astype(np.float32)
    return lambda rows: rows @ turn


def _permutation(rng: np.random.Generator, dim: int) -> Callable[[np.ndarray], np.ndarray]:
    order = rng.permutation(dim)
    return lambda rows: rows[:, order]


def _signs(rng: np.random.Generator, dim: int) -> Callable[[np.ndarray], np.ndarray]:
    signs = rng.choice(np.float32([-1, 1]), dim)
    return lambda rows: rows * signs


@dataclass
class Tally:
    """Batches of one kind, wrong verdicts among them, and the smallest margin."""

    judged: int = 0
    wrong: int = 0
    margin: float = np.inf

    def add(self, verdict: Verdict, native: bool, gap: float) -> None:
        self.judged += 1
        self.wrong += verdict.ok != native
        if verdict.numbers and not verdict.note:
            distance = (verdict.numbers["score"] - verdict.limits["score"]) / gap
            self.margin = min(self.margin, distance if native else -distance)


def measure(profile: Profile, space: Space, *, seed: int, batches: int) -> tuple[dict[str, Tally], dict[str, Tally]]:
    """Judge native and foreign batches of 64 and return the tallies by kind."""
    rng = np.random.default_rng([seed, 17])
    native: dict[str, Tally] = {}
    foreign: dict[str, Tally] = {}
    gap = max(profile.limits.native - profile.limits.foreign, 1e-9)
    for is_native, tallies, stream in (
        (True, native, native_batches(space, rng, batches)),
        (False, foreign, foreign_batches(space, rng, batches)),
    ):
        for kind, batch in stream:
            tallies.setdefault(kind, Tally()).add(profile.judge(batch), is_native, gap)
    return native, foreign


def fitted(space: Space, *, rows: int, seed: int, section: str | None = None) -> tuple[Profile, Space]:
    """Return a profile fitted to `rows` random rows of the space, or of one section, and the space without them."""
    pool = np.arange(len(space.docs)) if section is None else np.flatnonzero(space.topics == section)
    chosen = np.random.default_rng([seed, 3]).choice(pool, min(rows, len(pool)), replace=False)
    return fit_profile(space.docs[chosen], "cosine", seed=seed), space.without(chosen)


def disjoint(space: Space, kind: str, judged: int) -> int:
    """Return how many batches of a kind share no row with another of the kind."""
    pools = {"random": space.docs, **space.pools}
    if kind == "one topic":
        return min(judged, int((np.unique(space.topics, return_counts=True)[1] // ROWS).sum()))
    return min(judged, len(pools[kind]) // ROWS) if kind in pools else 0


def rows_to_alarm(profile: Profile, rows: np.ndarray) -> int:
    """Return after how many rows, written one at a time, the alarm comes; 0 for never."""
    state = Cusum()
    for place in range(len(rows)):
        state, alarm = profile.step(state, rows[place : place + 1])
        if alarm:
            return place + 1
    return 0


def streams(profile: Profile, space: Space, *, seed: int, count: int) -> dict[str, list[int]]:
    """Return rows to the alarm of native streams (all pools, in order and sorted by topic) and of foreign ones."""
    rng = np.random.default_rng([seed, 29])
    found: dict[str, list[int]] = {}
    by_topic = space.docs[np.lexsort((rng.random(len(space.docs)), space.topics))]
    for name, pool in {"documents": space.docs, "topic-sorted": by_topic, **space.pools}.items():
        starts = rng.integers(0, max(1, len(pool) - 1000), max(1, count // 8))
        found[f"native {name}"] = [rows_to_alarm(profile, pool[start : start + 1000]) for start in starts]
    chains = [space.docs[next(nearest(space.docs, rng, 1))] for _ in range(count)]
    found["native neighbours"] = [rows_to_alarm(profile, rows) for rows in chains]
    kinds = list(foreign_batches(space, rng, max(10, count // 4)))
    for place in rng.permutation(len(kinds))[: 4 * count]:
        found.setdefault("foreign", []).append(rows_to_alarm(profile, kinds[place][1]))
    return found


def warned(profile: Profile, rows: np.ndarray) -> float:
    """Return the share of single queries that get a warning."""
    return float(np.mean([profile.query_warning(row) is not None for row in rows]))


def report(space: Space, profile: Profile, *, seed: int, batches: int, title: str) -> tuple[int, int]:
    """Print the table of one profile and return false alarms and misses."""
    limits = profile.limits
    print(
        f"\n{title}: weights {limits.weights}, foreign {limits.foreign:.2f} limit {limits.limit:.2f} native "
        f"{limits.native:.2f}; rows {limits.row_foreign:.2f} / {limits.row_limit:.2f} / {limits.row_native:.2f}"
    )
    totals = []
    for side, tallies in zip(("native", "foreign"), measure(profile, space, seed=seed, batches=batches), strict=True):
        for kind, tally in tallies.items():
            apart = f", {disjoint(space, kind, tally.judged)} disjoint" if side == "native" else ""
            counts = f"{tally.judged:6d} judged {tally.wrong:4d} wrong"
            print(f"  {side:8s}{kind:28s}{counts}, margin {tally.margin:6.2f}{apart}")
        totals.append(sum(tally.wrong for tally in tallies.values()))
        print(f"  {side:8s}{'TOTAL':28s}{sum(t.judged for t in tallies.values()):6d} judged {totals[-1]:4d} wrong")
    _report_rows(space, profile, seed)
    return totals[0], totals[1]


def _report_rows(space: Space, profile: Profile, seed: int) -> None:
    for kind, alarms in streams(profile, space, seed=seed, count=32).items():
        hit = [a for a in alarms if a]
        place = f", after {min(hit)} to {max(hit)} rows" if hit else ""
        print(f"  stream  {kind:28s}{len(alarms):6d} streams {len(hit):4d} alarms{place}")
    sample = np.random.default_rng(seed).choice(len(space.docs), 1500, replace=False)
    pools = {"documents": space.docs[sample], **{name: pool[:4500] for name, pool in space.pools.items()}}
    pools |= {f"foreign {name}": pool[sample] for name, pool in space.others.items()}
    shares = ", ".join(f"{name} {100 * warned(profile, rows):.2f} %" for name, rows in pools.items())
    print("  query warnings:", shares)


def main() -> None:
    """Parse the command line and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--batches", type=int, default=400)
    parser.add_argument("--fit", type=int, nargs="+", default=[2000])
    parser.add_argument("--section", nargs="*", default=[])
    parser.add_argument("--spaces", nargs="*", default=[*TEXT_MODELS, "el0", "el2"])
    options = parser.parse_args()
    root = default_root()
    models = tuple(name for name in TEXT_MODELS if name in options.spaces)
    spaces = [*text_spaces(root, models), *(s for s in emoji_spaces(root) if s.name in options.spaces)]
    alarms = misses = 0
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for space in spaces:
            cases = [(rows, None) for rows in options.fit if rows <= 0.6 * len(space.docs)]
            if space.name in TEXT_MODELS:
                cases += [(options.fit[0], section) for section in options.section]
            for rows, section in cases:
                start = time.perf_counter()
                profile, rest = fitted(space, rows=rows, seed=seed, section=section)
                took = time.perf_counter() - start
                title = f"{space.name} fitted on {profile.rows} rows of {section or 'all'} (seed {seed}, {took:.2f} s)"
                found = report(rest, profile, seed=seed, batches=options.batches, title=title)
                alarms, misses = alarms + found[0], misses + found[1]
    print(f"\nall: {alarms} false alarms, {misses} misses")


if __name__ == "__main__":
    main()
