"""From all workers' journals to batches of whole calls, from where a consumer was.

call        a call with its reply and its shadow scores; batches of them    pure
listing     which segments there are, each header read once
follower    one boot's segments, read on step by step
join        calls wait there for their replies and scores
tail        all workers' journals, as batches
shared      one reading of the journal for all consumers that keep up
begun       what a consumer reads from whose checkpoint cannot be read yet
checkpoint  how far each consumer is, on disk
lag         what a consumer has not had yet
retention   which segments none needs any more: published, and deleted
"""
