"""Unit tests of `workers.wire`."""
