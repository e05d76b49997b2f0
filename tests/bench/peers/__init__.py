"""Other libraries that recommend, in one prequential loop with Headrace.

deeds           a stream of evaluation as they get it: users and items by number
loop            the loop: for each event the chosen item's place in their list, then learn
with_implicit   implicit (batch, kept fresh: refits, fold-in, partial updates)
with_river      river (online)
with_flurs      flurs (online)
recipes         what of each is tried
contest         all of it on one data set
"""
