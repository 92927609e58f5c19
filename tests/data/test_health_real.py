"""The health of spaces of real models over real text: what is known of them is found."""

import gzip
import json

import numpy as np
import pytest

import vecdb
from vecdb.evaluation.health.isotropy import isotropy

DOCUMENTS = 9_000


def load(path):
    rows = np.load(path)[:DOCUMENTS].astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def looked_at(shared_data, tmp_path_factory):
    """Debian descriptions in random order in two models, then abstracts on aerodynamics in one of them."""
    with gzip.open(shared_data / "debian" / "docs.jsonl.gz", "rt", encoding="utf-8") as lines:
        records = [json.loads(line) for line, _ in zip(lines, range(DOCUMENTS), strict=False)]
    mini6, e5s = (load(shared_data / "debian" / f"{name}.docs.f16.npy") for name in ("mini6", "e5s"))
    ids = [str(record["id"]) for record in records]
    with vecdb.open(tmp_path_factory.mktemp("health") / "x.vecdb", durability="relaxed", automatic=False) as db:
        docs = db.create_collection("debian")
        docs.add_space("mini6", dim=384, dtype="float16")
        docs.add_space("e5s", dim=384, dtype="int8")
        metadata = [{"section": record["section"], "source": record["source"]} for record in records]
        docs.upsert(ids, {"mini6": mini6, "e5s": e5s}, metadata)
        first: dict[str, str] = {}
        pairs = []
        for record in records:
            if record["source"] in first:
                pairs.append((str(record["id"]), first[record["source"]]))
            first.setdefault(record["source"], str(record["id"]))
        before = {name: docs.health(name, labels="section", pairs=pairs, sample=3_000) for name in ("mini6", "e5s")}
        other = load(shared_data / "cranfield" / "mini6.docs.f16.npy")
        docs.upsert([f"cranfield {n}" for n in range(len(other))], {"mini6": other}, trust=True)
        after = docs.health("mini6", sample=3_000)
    return before, after, mini6


def test_what_is_known_of_both_models_is_found(looked_at):
    before, _, _ = looked_at
    mini6, e5s = before["mini6"], before["e5s"]
    assert mini6.cosines.mean.high < 0.2 and e5s.cosines.mean.low > 0.75  # e5 fills a narrow cone
    assert "narrow cone" in " ".join(e5s.remarks) and "narrow cone" not in " ".join(mini6.remarks)
    for health in (mini6, e5s):
        assert health.hubness.skewness.low > health.hubness.floor + 1  # both have hubs, as text models do
        assert 10 < health.dimension.mle.value < 40 and health.dimension.two_nn.value < health.dimension.mle.value
        assert health.classes.agreement.low > 3 * health.classes.chance
        assert health.evalrank.hits1.low > 0.2 > 1 / health.evalrank.background
        assert health.versions[0].overlap.low > 5 * health.versions[0].overlap_by_chance
        assert abs(health.versions[0].cosine.value) < 0.2  # the same width, and not the same space


def test_documents_in_random_order_do_not_drift_and_another_collection_does(looked_at):
    before, after, _ = looked_at
    assert not [remark for remark in before["mini6"].remarks if "order of age" in remark]
    others = DOCUMENTS, after.vectors
    assert [remark for remark in after.remarks if "order of age" in remark]
    worst = max(after.drift.windows, key=lambda window: window.coefficient)
    assert worst.stop == others[1] and worst.first >= others[0] - worst.stop // 10
    assert worst.coefficient > 10 * after.drift.limit and after.drift.change is not None


def test_a_sample_tells_of_the_whole(looked_at):
    before, _, rows = looked_at
    found = before["mini6"].isotropy.score
    assert found.low - 0.02 <= isotropy(rows).score.value <= found.high + 0.02
    mean = rows.mean(axis=0, dtype=np.float64)
    whole = (len(rows) ** 2 * float(mean @ mean) - len(rows)) / (len(rows) * (len(rows) - 1))
    assert before["mini6"].cosines.mean.low <= whole <= before["mini6"].cosines.mean.high
