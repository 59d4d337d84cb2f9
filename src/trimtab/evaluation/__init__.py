"""Measuring what steering did. Each module is one idea; none of them loads a model by itself.

An evaluation is items, conditions and a score: `samples.measure` runs them and keeps a row per sample.

items           prompts under stable names, with continuations where a score wants them
conditions      what is done to the model: nothing, a plan, a random direction, words in front
samples         rows of items under conditions, in shared batches, resumed after any kill
continuation    replies that the token limit cut, gone on with to a larger one
scorers         rows and answers to numbers, by name; `rescore` applies one to a finished run
fluency         how well the model still writes under a condition; `coherence` is its trigram measure
statistics      intervals, paired tests and corrections; the unit of resampling is the item
dose_response   rows over doses and the line through them; `slopes` what each item says
limits          what a push costs; `calibration` solves for the largest push within a limit
sign_check      whether + pushes towards the concept
cells, curves   the axes of a sweep and what they gave; `sweep` chooses, `examples` shows
reporting       what every report is made of; the pages and tables beside each study use it
materials       prompts for models that bring none
classifier      calibrated posteriors of a concept given a text
log_ratio       log-odds of two answers at a forced slot, with the probability mass that both together hold
answers         answers that the model writes itself, and the log-ratio at their own token
transfer        dilemmas: target and other values, strength chosen off the items, leaderboard
readout         does a direction read corpora it was not made from; steer one concept, read all
rollouts        questions × vectors × scales × samples; vectors and runs compared
rule_traces     precision, recall and delay of rules on recorded readings
"""
