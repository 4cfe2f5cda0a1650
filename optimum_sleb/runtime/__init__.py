"""What the whole package stands on: files, JSON, tables of text, memory, and the processes of a run."""
