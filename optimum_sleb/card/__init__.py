"""How the model card of a pruned model is written: its tables, its plots, its front matter, its commands."""
