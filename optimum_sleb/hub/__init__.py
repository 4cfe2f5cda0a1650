"""What leaves this machine: the folder and its card."""
