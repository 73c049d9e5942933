"""What looks at training from outside: logs, pictures, scores, checkpoints, signals."""
