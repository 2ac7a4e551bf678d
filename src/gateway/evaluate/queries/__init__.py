"""The evaluator's questions to the lake, in DuckDB's dialect: one file each.

superseded       answers of which a later one to the same transaction counts
evidence         what is known of each payment by now
cells            decisions and what is known of them, added up
groups           the same by groups of customers
drift_columns    what decisions have, in this lake
drift_fields     what features and watched segments they have
drift_counts     how many decisions each hour has
drift_told       a sample of a product's days, a row a value
drift_quantiles  what bins of numbers are made of
drift_values     the frequent ones of texts
drift_cells      histograms, by hour and by group of customers
behind_…         the decisions behind a figure, counted and looked up
label_…          what labels say of one payment
"""
