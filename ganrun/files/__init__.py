"""Files of a run: whole or not there, with one owner; checkpoints with a checksum."""
