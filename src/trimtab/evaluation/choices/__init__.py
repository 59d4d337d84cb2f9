"""Questions with options under plans: A/B choice, and multiple choice that steering should leave alone.

asking     one row per question and condition, kept as those of every evaluation are
effects    what steering did to the margins, beside random directions
page       the report
"""
