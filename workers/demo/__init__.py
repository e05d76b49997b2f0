"""The demo: every role on a data set that is played at a rate, and what comes of it."""
