"""Transfer: does a vector made on one kind of data move decisions in dilemmas that it has never seen?

cells        what is measured: a method at a strength, a prompt, a random direction, trained weights, nothing
asking       how a dilemma is asked
measurement  one cell on all dilemmas: log-ratios, masses, NLL, free answers
rows         a measured cell as rows of a run, one per question, and back
effects      what the numbers say: target, others, breadth, slopes, coherence range; pure functions
study        all cells, the choice of strength off the evaluation items, and the rows of the table
shown        every value's change and examples by rule, for the page
leaderboard  conditions side by side under four rules, and whether their order depends on the rule
tables, page the study for a paper, for a browser and for a model card
"""
