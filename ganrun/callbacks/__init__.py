"""What watches training from outside: logs, pictures, scores, checkpoints, signals."""
