"""What every kind of transform is worth on real data: `python -m tools.evaluate FOLDER`.

Reads any folder of the layout that the shared data have (`corpus`), draws pairs by group (`protocol`), fits and asks
every kind (`arms`, `measure`), and writes tables with intervals (`report`). Protocol: docs/explanation/evaluation.md.
"""
