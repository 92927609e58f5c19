"""What a look at the health of a space reads: a sample of its vectors, their true neighbours, what indexes find.

Everything is of one commit, now or in the past, and read under short leases; memory is bounded by the sample, not by
the collection. The measures themselves are in vecdb/evaluation/health, and the report is in vecdb/health.
"""
