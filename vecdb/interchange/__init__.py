"""Import and export: files and tables in, committed records out, and back without loss.

`import_data` reads vector files (``.npy``, ``.npz``, ``.fvecs`` and relatives), records (``.jsonl``, Parquet, Arrow),
tables in memory, and what an importer of a plugin reads; `export_data` writes the loss-free directory
``vecdb-export/1`` and the common formats. Both stream: no more than ids is held of the whole collection. Built on the
public names of vecdb alone. How to use it: docs/how-to/import-and-export.md.
"""

from vecdb.interchange.codec import dumps, loads
from vecdb.interchange.exporting import FORMATS, ExportResult, export_data
from vecdb.interchange.foreign import find_importer
from vecdb.interchange.frames import to_arrow, to_pandas
from vecdb.interchange.importing import from_table, import_data, inspect_source
from vecdb.interchange.labelled import LabelledQueries, read_labelled
from vecdb.interchange.queries import read_vectors
from vecdb.interchange.run import ImportResult
from vecdb.interchange.sources import SourceFacts
from vecdb.interchange.suffixes import reads_itself

__all__ = [
    "FORMATS",
    "ExportResult",
    "ImportResult",
    "LabelledQueries",
    "SourceFacts",
    "dumps",
    "export_data",
    "find_importer",
    "from_table",
    "import_data",
    "inspect_source",
    "loads",
    "read_labelled",
    "read_vectors",
    "reads_itself",
    "to_arrow",
    "to_pandas",
]
