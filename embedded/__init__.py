"""Source of the embedded model: the text it is trained on, its tokenizer, training, export and evaluation.

Nothing here is part of the installed package. See ``embedded/README.md`` for the commands.
"""
