"""A stand-in for the Devin API, for tests, the demo and anyone without a key. Knows nothing of the client."""
