"""What is stored: tables, views, migrations, and the only functions that write and read them, also as files.

Knows neither Dagster nor the API nor the settings, opens no database, and holds no analysts' questions but examples.
"""
