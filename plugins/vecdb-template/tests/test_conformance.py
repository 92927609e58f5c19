from vecdb_template import ListsType

from vecdb.testing import parametrize_with_checks


@parametrize_with_checks([ListsType()])
def test_conformance(index_type, check):
    check(index_type)
