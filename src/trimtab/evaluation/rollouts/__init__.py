"""Rollouts: questions × vectors × scales × samples with one loaded model, and what they say side by side.

questions   where the questions come from
grid        which vector at which scale, and whose norm a scale multiplies
run         one record per reply, in batches of rows with their own plans
summary     per condition and per question
compare     vectors against vectors, runs against runs
"""
