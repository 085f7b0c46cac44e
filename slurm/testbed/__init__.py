"""A real Slurm on one machine, inside one directory, for tests and for trying things out."""
