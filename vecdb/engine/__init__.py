"""What a collection does: reads, writes, search, conditions, upkeep."""
