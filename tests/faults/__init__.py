"""The faults that must be survived: one file each, `test_NN_name.py`, run by `./dev faults`.

A new fault is one file and nothing else. Its docstring says what is done and what must hold, and its first line is what
`./dev faults --list` prints. Its tests take the fixture `fault` (account.py), which has the amounts of the short and of
the long form, keeps the account of what bit, and proves on a `Run` (run.py): worker processes, a driver, the verdict.
All but five carry the marker `slow`, so that `./dev test` stays short.
"""
