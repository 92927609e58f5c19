"""What a collection does: reads, writes, search, filters, upkeep."""
