"""Adam with decoupled weight decay, on plain arrays: Kingma and Ba (ICLR 2015), Loshchilov and Hutter (ICLR 2019)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["Adam", "cosine_rate"]

Array = npt.NDArray[np.floating]

_FIRST, _SECOND, _TINY = 0.9, 0.999, 1e-8


class Adam:
    """Moments of the gradients of some arrays, which `step` changes in place.

    Parameters
    ----------
    arrays : sequence of ndarray
        Floating point, writable.
    decay : float, default 0.0
        Share by which arrays shrink at each step, times the rate.
    """

    def __init__(self, arrays: Sequence[Array], decay: float = 0.0) -> None:
        self._arrays = list(arrays)
        self._first = [np.zeros_like(array) for array in arrays]
        self._second = [np.zeros_like(array) for array in arrays]
        self._decay = decay
        self._steps = 0

    def step(self, gradients: Sequence[Array], rate: float) -> None:
        """Move every array against its gradient by at most about `rate` in each component."""
        self._steps += 1
        bias_one, bias_two = 1.0 - _FIRST**self._steps, 1.0 - _SECOND**self._steps
        for array, gradient, first, second in zip(self._arrays, gradients, self._first, self._second, strict=True):
            first += (1.0 - _FIRST) * (gradient - first)
            second += (1.0 - _SECOND) * (gradient * gradient - second)
            if self._decay:
                array *= 1.0 - rate * self._decay
            array -= (rate / bias_one) * first / (np.sqrt(second / bias_two) + _TINY)


def cosine_rate(step: int, steps: int, *, last: float = 0.05) -> float:
    """Return the share of the rate at a step, from 1 down to `last` along half a cosine."""
    return last + (1.0 - last) * 0.5 * (1.0 + math.cos(math.pi * step / max(1, steps)))
