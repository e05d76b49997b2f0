"""Prequential evaluation: test on each event, then learn from it, over the very objects that serve live.

stream        the events of a data set, in the order of their times, as arrays
prequential   the loop: state, query, rank of what was chosen, learn
baselines     what plain methods would have answered, in the same pass
outcomes      what became of the queries, as columns
metrics       from ranks to figures, with standard errors clustered by user
report        all figures of a run, as one object
"""
