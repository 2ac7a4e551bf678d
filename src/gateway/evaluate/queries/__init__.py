"""The evaluator's questions to the lake, in DuckDB's dialect: one file each.

superseded  answers of which a later one to the same transaction counts
evidence    what is known of each payment by now
cells       decisions and what is known of them, added up
groups      the same by groups of customers
"""
