from vecdb_faiss import FactoryType

from vecdb.testing import parametrize_with_checks


@parametrize_with_checks([FactoryType()])
def test_conformance(index_type, check):
    check(index_type)
