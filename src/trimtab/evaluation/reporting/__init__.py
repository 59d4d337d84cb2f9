"""What every evaluation's report is made of; each evaluation's own page stands beside its study.

paper      tables that go into a paper: Markdown, CSV and HTML from one set of figures
charts     dose curves with their bands, bars of values, slopes of items, heatmaps
ship       the calibrated safe range of a vector, in the unit of a chart
triplets   examples (minus, 0, plus), chosen by a rule
card       the block for a model card
parts      the frame and the sections that pages share
folder     report.html, table.md, table.csv and card.md beside a run
"""
