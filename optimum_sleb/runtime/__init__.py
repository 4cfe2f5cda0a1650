"""What the whole package stands on: JSON files, memory, and the processes of a run."""
