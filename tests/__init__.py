"""The tests."""

import os

# Before NumPy is loaded: with more threads the small products of the tests are slower, and their neighbours starve.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
