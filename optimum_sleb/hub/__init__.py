"""Output folder, model card and upload to the Hub."""
