"""What is stored: tables, views, migrations, and the only functions that read or write them, files included.

Knows nothing of Dagster, the API or the settings, and opens no database. Its only queries for analysts are examples.
"""
