"""What the whole package stands on: files, JSON, memory, and the processes of a run."""
