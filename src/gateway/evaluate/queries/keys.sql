-- Of which payment each answer that had come by then is.
select key from facts where received_us <= epoch_us($as_of);
