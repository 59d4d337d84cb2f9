"""Measuring what steering did. Each module is one idea; none of them loads a model by itself.

statistics      intervals, paired tests and corrections; the unit of resampling is the item
coherence       how much of a text is made of word trigrams that a fixed reference corpus never used
classifier      calibrated posteriors of a concept given a text
log_ratio       log-odds of two answers, with the probability mass that both together hold
dose_response   rows over doses, and what can be said about them
"""
