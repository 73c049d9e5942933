"""Files of a run: whole or absent, with one owner; checkpoints with a checksum."""
