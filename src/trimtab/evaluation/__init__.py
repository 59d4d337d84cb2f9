"""Measuring what steering did. Each module is one idea; none of them loads a model by itself.

statistics      intervals, paired tests and corrections; the unit of resampling is the item
coherence       how much of a text is made of word trigrams that a fixed reference corpus never used
classifier      calibrated posteriors of a concept given a text
log_ratio       log-odds of two answers at a forced slot, with the probability mass that both together hold
answers         answers that the model writes itself, and the log-ratio at their own token
scorers         what an answer is worth: judge, classifier, perplexity, repetition, letters
transfer        dilemmas: target and other values, strength chosen off the items, leaderboard
readout         does a direction read corpora it was not made from; steer one concept, read all
rollouts        questions × vectors × scales × samples; vectors and runs compared
dose_response   rows over doses, and what can be said about them
"""
