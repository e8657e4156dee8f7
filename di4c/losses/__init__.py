"""Di4C's losses, written once for all systems.

loss        the three losses in the paper's symbols
options     what a spec says of them
inputs      what is drawn for them: t, x_t, the student at t, the target at u
terms       weights, estimators and regions of the three terms, the teacher's step; checks: which may stand where
full_noise  the data term at t = 1 with examples of its own; clusters: a start for its λ
objective   the module that trains on them
pretraining the teacher's bound
rollouts    data-free reference: the teacher's own samples
"""
