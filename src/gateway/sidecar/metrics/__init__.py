"""From batches to what Prometheus is shown, and the rules it watches them with.

buckets     histograms by key                                               pure
metrics     calls -> what Prometheus is shown
measures    from the tail to the metrics
alerts      promises -> Prometheus rules                                    pure
"""
