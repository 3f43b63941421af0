"""What no document can say of a request: whether what it names is there."""
