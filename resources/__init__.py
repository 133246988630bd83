"""How the outside is reached: the API, databases, files, a webhook. What is asked and stored is not decided here."""
