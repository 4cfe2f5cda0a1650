"""From any source of text to token windows."""
