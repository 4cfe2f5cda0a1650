"""What happened to a model: the report, its records, and how it is built."""
