"""`trimtab demo`: extract concept vectors from the embedded model, steer it, read it, and write down what
happened.

settings    every number of the demo, in one frozen dataclass
materials   the texts it uses, which ship with the embedded model
feelings    five emotions: vectors, layers, doses, baselines, scores
honesty     the mean-difference direction, and one that was learned
readings    concept scores per token, and how well they tell stories apart
results     what came out, as values and as the line of JSON
run         the order of things
terminal    the results for a terminal;  report, charts, strips: the same as one HTML file
"""
