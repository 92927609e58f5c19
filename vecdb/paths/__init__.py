"""From one space to another over several transforms: which path is taken (`graph`), and the path as one (`compose`).

Pure functions on values of the transform contract; nothing here knows the store or any kind of transform.
"""
