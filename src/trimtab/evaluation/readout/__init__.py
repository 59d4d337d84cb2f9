"""Is a direction a readout? And what else moves when one concept is steered?

matrix    AUC of training corpus × unseen corpus × layer, with grouped intervals, random directions and controls
controls  what could tell the sides apart without the concept: length, sentiment words, topic words
cross     steer each concept, read all of them in the same pass
page, cross_page   their reports
"""
