from vecdb_usearch import UsearchType

from vecdb.testing import parametrize_with_checks


@parametrize_with_checks([UsearchType()])
def test_conformance(index_type, check):
    check(index_type)
