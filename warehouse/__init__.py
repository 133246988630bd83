"""What is stored: tables, views, and the only functions that write and read them. Knows neither Dagster nor the API."""
