"""What can be said of the vectors of one space, of two, and of indexes over them: pure measures over arrays.

Every measure is a plain function that returns a frozen value with an interval wherever a sample leaves one, or None
where there is too little to say anything. Nothing here knows a database. What each number means, and how it was
tested: docs/explanation/health.md.
"""
