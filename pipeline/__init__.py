"""The pure half of Headrace: what is computed. No I/O, no clock, no environment, no logging."""
