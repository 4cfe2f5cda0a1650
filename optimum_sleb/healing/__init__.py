"""Fine-tuning of a pruned model: on text or labels, or on what the dense model says, by transformers' Trainer."""
