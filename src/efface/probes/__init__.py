"""What looks for knowledge that outputs hide: works on a copy, may train it, says its price first.

A probe takes a model and records and gives numbers; the model comes out as it went in. Beside each
stands a function that ends in ``_cost``: the passes of a call with the same settings. Scores read
arrays and never train; what they compare with (a retrained model, unseen records) is probed alike.
"""
