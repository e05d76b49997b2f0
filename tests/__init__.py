"""The tests."""

from workers.kernels import prepare

prepare()  # before anything imports NumPy or numba
