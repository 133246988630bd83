"""Access to the outside: the API, databases, files, a webhook. What to request and store is decided elsewhere."""
