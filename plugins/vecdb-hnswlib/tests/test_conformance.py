from vecdb_hnswlib import HnswType

from vecdb.testing import parametrize_with_checks


@parametrize_with_checks([HnswType()])
def test_conformance(index_type, check):
    check(index_type)
