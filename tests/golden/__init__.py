"""Checked-in bytes of every version of every record: what was written once must be readable for ever."""
