"""Readers of data set formats: a file or folder in, our own data objects (wire.md) out."""
