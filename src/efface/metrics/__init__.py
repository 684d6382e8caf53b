"""Arrays in, a number out; a metric never trains.

``evaluation``: one pass of a model makes the arrays · ``accuracy``: utility, calibration,
fairness · ``membership``: population attacks · ``lira``: per-record attacks with shadow models ·
``divergence``: predictions and margins of two models · ``equivalence``: to unseen records and to
retrained models · ``permutation``: forget against unseen records within classes ·
``retrain_gap``: distance to retraining in one number · ``intervals``: intervals,
p-values, TPR at low FPR · ``refusals``: what no metric may count.
"""
