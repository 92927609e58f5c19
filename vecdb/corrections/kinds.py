"""The kinds of correction: what each is called, which parameters it has, and what it needs.

Invariant: a kind is a value, and every parameter has a default and bounds, so that whatever is stored can be checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from vecdb.contracts.params import Param
from vecdb.errors import UnknownNameError

__all__ = ["KINDS", "Kind", "kind_named"]

Form = Literal["bias", "proximity", "image"]

_NEIGHBOURS = Param("int", 10, "Nearest queries of the bank whose scores are averaged.", 1, 10_000)
_TEMPERATURE = Param("float", 0.7, "Of the softmax over the bank, in deviations of the bank's scores.", 0.01, 100.0)
_GALLERY = Param("int", 1_000, "Stored rows that are drawn to stand for all of them.", 2, 20_000)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of correction.

    Attributes
    ----------
    name : str
    form : {"bias", "proximity", "image"}
        What is kept of each row: a bias that is added to its scores; mean and deviation of the bank's scores; or an
        image of it that is compared with that of the query.
    params : mapping of str to Param
    source : str
        Where it was published.
    """

    name: str
    form: Form
    params: Mapping[str, Param]
    source: str

    @property
    def stored(self) -> bool:
        """Whether what is kept of rows goes into the file; images are as large as the vectors, and made anew."""
        return self.form != "image"

    def width(self, params: Mapping[str, Any], dim: int) -> int:
        """Return how many numbers are kept of each row: a bias, and whether it is activated; two moments; an image."""
        if self.form == "image":
            return dim
        return 2 if self.form == "proximity" or self.dynamic(params) else 1

    def gallery(self, params: Mapping[str, Any]) -> int:
        """Return how many stored rows are drawn for a bank of their own; 0 where none is needed."""
        if self.name == "dbnorm" and params["banks"] == "query":
            return 0
        return int(params.get("gallery", 0))

    def dynamic(self, params: Mapping[str, Any]) -> bool:
        """Return whether a query is corrected only where its best row is one that the bank often finds."""
        return bool(params.get("dynamic", False))


KINDS: Final[Mapping[str, Kind]] = {
    kind.name: kind
    for kind in (
        Kind(
            "csls",
            "bias",
            {"neighbours": _NEIGHBOURS},
            "Conneau et al., Word translation without parallel data, ICLR 2018, section 2.3",
        ),
        Kind(
            "inverted-softmax",
            "bias",
            {"temperature": _TEMPERATURE},
            "Smith et al., Offline bilingual word vectors, ICLR 2017, section 2.2",
        ),
        Kind(
            "dbnorm",
            "bias",
            {
                "banks": Param("str", "dual", "Whose scores normalise a row.", choices=("query", "gallery", "dual")),
                "dynamic": Param("bool", True, "Correct only queries whose best row the bank finds, too."),
                "activated": Param("int", 1, "A row is activated by a query of the bank that has it so high.", 1, 100),
                "temperature": _TEMPERATURE,
                "gallery": _GALLERY,
            },
            "Bogolin et al., Querybank normalisation, CVPR 2022; Wang et al., Balance act (dual bank), EMNLP 2023",
        ),
        Kind(
            "mutual-proximity",
            "proximity",
            {"gallery": _GALLERY},
            "Schnitzer et al., Local and global scaling reduce hubs in space, JMLR 2012, section 3.2 (Gaussian)",
        ),
        Kind(
            "fnorm",
            "image",
            {"gallery": _GALLERY},
            "Nielsen and Hansen, Hubness reduction improves Sentence-BERT semantic spaces, NLDL 2024 (f-norm)",
        ),
    )
}


def kind_named(name: object) -> Kind:
    """Return a kind.

    Raises
    ------
    UnknownNameError
    """
    found = KINDS.get(name) if isinstance(name, str) else None
    if found is None:
        raise UnknownNameError(
            f"there is no correction of kind {name!r}; there are {sorted(KINDS)}",
            kind="correction",
            name=name,
            available=sorted(KINDS),
        )
    return found
