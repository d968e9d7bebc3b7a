"""Learning from labels which images are alike: losses, fair trials on classes apart, and figures before and after.

labelled.py    which images of a collection have a class, and which classes are kept apart
retrieval.py   P@1, R-precision, MAP@R
losses.py      losses and miners of pytorch-metric-learning, and the ranges their settings are drawn from
network.py     the head that is trained on vectors of the frozen network
training.py    one training of one head
protocol.py    trials on folds of classes, then seeds, then the test classes, once
fitted.py      what a fit leaves behind: the projection, its figures, and a score
"""
